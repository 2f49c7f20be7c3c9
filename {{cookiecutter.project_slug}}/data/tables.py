"""What tables share: columns by their types, the target, and how rows are encoded."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from data.base import Data
from data.columns import (
    Column,
    by_kind,
    described,
    encode,
    find_columns,
    keys_of_rows,
    places_of,
    to_numbers,
)
from data.table_preparation import PrepareTable
from data.table_targets import find_classes, tell_copies
from engine.errors import UserError
from engine.sample_keys import keys_of
from engine.samples import TensorSamples
from engine.splits import Rows, complete_splits
from engine.table_files import as_table

Task = Literal["auto", "classification", "regression"]
LEAST_ROWS = 20  # which leave two for each split


class TableData(Data):
    """Base of the tables: a subclass sets the attributes below and implements `read_splits`.

    A raw batch is numbers (B, N), codes of categories (B, C) and targets (B,); exported files take
    it as a dict of columns (B,). Prepared, it is ((numbers, codes), targets). A date is the days
    since 1970; a code is the place of a category in its column's `categories`, from 1; 0 is unknown
    or missing, as NaN is of a number. Targets are class indices or floats; -1 or NaN where unknown.
    """

    largest_batch = 256  # as Gorishniy et al. 2021 take for thousands of rows

    target: str  # the column to predict
    task: Task = "auto"  # classification: the target is text, a boolean, or few whole numbers
    categorical: Sequence[str] = ()  # numbers or texts that are categories in any case
    leave_out: Sequence[str] = ()  # what is no input
    id_column: str | None = None  # no input either, but a column of the predictions
    reading: dict[str, Any] = {}  # arguments of `read_table` for what `predict_dir` names

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns: list[Column] = []
        self.class_names: list[str] = []
        self.keys: Tensor | None = None  # (N,), identify rows, however they are encoded
        self.row_numbers: Any = None  # (N,), in the file: rows without a target are left out
        self.known: list[str] = []  # the columns that identify rows
        self.reason = ""  # why the target is numbers or classes, if `task` is auto

    def read_splits(self) -> tuple[pyarrow.Table, Rows]:
        """All rows, and by split the rows (N,) that the data set comes with, or {}."""
        raise NotImplementedError

    @property
    def is_there(self) -> bool:
        """Whether there are rows to train on; to predict others a checkpoint is enough."""
        return True

    @cached_property
    def whole(self) -> tuple[pyarrow.Table, Rows]:
        table, rows = self.read_splits()
        if len(table) < LEAST_ROWS:
            raise UserError(
                f"{self.source}: {len(table)} rows are too few, {LEAST_ROWS} are needed."
            )
        return table, rows

    @property
    def source(self) -> str:
        return type(self).__name__

    @property
    def facts(self) -> dict[str, Any]:
        if not self.columns:
            if self.hparams.predict_dir is not None and not self.is_there:
                return {}
            self.study()
        numbers, categories = by_kind(self.columns)
        return {
            "columns": self.columns,
            "target": self.target,
            "class_names": self.class_names,
            "table_columns": self.known,
            "num_numbers": len(numbers) + sum(column["missing"] for column in numbers),
            "cardinalities": [1 + len(column["categories"]) for column in categories],
            "num_outputs": len(self.class_names) or 1,
        }

    def study(self) -> None:
        """Finds out what the target is, and what the columns hold in the training rows."""
        table, rows = self.whole
        others = [*filter(None, [self.id_column]), *self.leave_out]
        for name in [*others, *self.categorical]:
            if name not in table.column_names:
                known = ", ".join(table.column_names)
                raise UserError(f"{self.source} has no column {name!r}, but {known}.")
        targets = table[self.target]
        self.class_names, self.reason = find_classes(targets, self.task, self.source)
        labels = places_of(targets, self.class_names) if self.class_names else None
        keys = self.find_keys([self.id_column] if self.id_column else table.column_names)
        splits = complete_splits(rows, keys, labels, self.test_fraction, self.hparams)
        inputs = table.drop_columns([*{self.target, *others}])
        self.columns = find_columns(inputs, splits["train"].numpy(), self.categorical, self.source)
        names = [column["name"] for column in self.columns]
        tell_copies(table, names, self.target, self.source)
        if twice := len(table) - len(keys_of_rows(table.select([*names, self.target])).unique()):
            rank_zero_info(
                f"{self.source}: {twice} rows repeat others, maybe those of another split"
            )

    def find_keys(self, names: list[str]) -> Tensor:
        table, rows = self.whole
        self.keys = keys_of(TensorSamples(keys_of_rows(table.select(names))), rows)
        self.known = names
        return self.keys

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            rank_zero_info(f"{self.source}: inputs are {described(self.columns)}")
        if stage == "fit" and self.reason:
            rank_zero_info(f"{self.source}: {self.target} is {self.reason}")

    def adopt(self, facts: dict[str, Any]) -> None:
        self.columns, self.class_names = facts["columns"], facts["class_names"]
        self.target = facts["target"]

    def keep(self, facts: dict[str, Any]) -> None:
        """New columns are no inputs, and new categories are unknown, as in `predict`; but settings
        that say otherwise win."""
        kinds = {column["name"]: column["kind"] for column in facts["columns"]}
        new = [name for column in self.facts["columns"] if (name := column["name"]) not in kinds]
        as_now = all(kinds.get(name, "category") == "category" for name in self.categorical)
        if as_now and kinds.keys().isdisjoint({self.target, self.id_column, *self.leave_out}):
            self.columns = facts["columns"]
            before = facts["table_columns"]
            if before != self.known and {*before} <= {*self.whole[0].column_names}:
                self.find_keys(before)
            if new:
                rank_zero_info(f"{self.source}: no inputs, since new: {', '.join(new)}")

    def load(self) -> tuple[TensorSamples, Rows]:
        if self.keys is None:
            self.study()
        table, rows = self.__dict__.pop("whole", None) or self.whole  # not needed any longer
        samples = self.encoded(table, self.source)
        samples.keys = self.keys
        return samples, rows

    def encoded(self, table: pyarrow.Table, source: str) -> TensorSamples:
        numbers, codes = encode(table, self.columns, source, self.row_numbers)
        known = self.target in table.column_names
        if self.class_names:
            targets = torch.full((len(table),), -1)
            targets = places_of(table[self.target], self.class_names) if known else targets
        else:
            targets = torch.full((len(table),), torch.nan)
            column = {"name": self.target, "kind": "number"}
            targets = to_numbers(table[self.target], column, source) if known else targets
        kept = [name for name in (self.id_column, self.target) if name in table.column_names]
        self.kept = table.select(kept)
        return TensorSamples((numbers, codes, targets), targets if self.class_names else None)

    def read(self, source: Any) -> TensorSamples:
        """The rows of a file or, from Python, of what `as_table` takes; it may lack the target."""
        _, categories = by_kind(self.columns)
        texts = [column["name"] for column in categories] + [*filter(None, [self.id_column])]
        self.row_numbers = None
        table = as_table(source, **{**self.reading, "texts": texts})
        if table is None:
            raise UserError(
                "There are no names of columns: give a file, a data frame or a list of dicts."
            )
        return self.encoded(table, source if isinstance(source, str) else "The table")

    @property
    def predict_names(self) -> list[str]:
        rows = np.array(self.splits["predict"].indices, dtype=int)
        return [*map(str, rows if self.row_numbers is None else self.row_numbers[rows])]

    @property
    def predict_columns(self) -> dict[str, list]:
        """The id and the target, as they are in the file."""
        rows = self.kept.take(list(self.splits["predict"].indices))
        return {name: rows[name].to_pylist() for name in rows.column_names}

    def tell_unlike(self, preparation: nn.Module, source: str) -> None:
        if isinstance(preparation, PrepareTable) and hasattr(preparation, "ranges"):
            numbers, *_ = self.splits["predict"].dataset.samples
            preparation.tell_others(numbers, source)

    @property
    def train_targets(self) -> Tensor:
        split = self.splits["train"]
        return split.dataset.samples[2].cpu()[split.indices]

    def preparation(self) -> nn.Module:
        split = self.splits["train"]
        return PrepareTable(self.columns, split.dataset.samples[0], split.indices)

    def export_batch(self, batch: Any) -> dict[str, Tensor]:
        """The columns by their names."""
        numbers, codes, _ = batch
        names = [column["name"] for kind in by_kind(self.columns) for column in kind]
        return dict(zip(names, [*numbers.unbind(1), *codes.unbind(1)], strict=True))
