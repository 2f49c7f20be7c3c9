"""Your own table, in a CSV or Parquet file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch

from data.table_targets import with_targets
from data.tables import TableData, Task
from engine.errors import UserError
from engine.splits import Rows
from engine.table_checks import refuse_twice
from engine.table_files import OPTIONS, read_table


class CSV(TableData):
    """A file with a row for each sample and a column to predict. Columns are numbers, booleans,
    dates or categories by their types; a value that is missing may stay so, but rows without the
    target are left out. A fifth of the rows, by `seed`, is the test split, unless a file has it.

    Args:
        data_path: a .csv or .parquet file.
        target: the column to predict.
        task: classification or regression; auto: classification of texts, booleans and few whole
            numbers.
        id_column: identifies rows in the predictions, with different values; is no input.
        test_path: another file, with the test split.
        categorical: columns of numbers or texts to treat as categories in any case.
        leave_out: columns that are no inputs, such as what is known only after the target.
        separator: between the fields; auto finds it in the first line.
        decimal: the decimal point or comma; auto finds it in the first rows.
        encoding: of the text; auto: UTF-8, UTF-16 by its byte-order mark, or else Windows-1252.
        missing: what stands for a missing value, beside nothing, NA, NaN, null and the like.
        date_format: of dates that are not as 2026-01-31 or 20260131, such as "%d.%m.%Y".
    """

    def __init__(
        self,
        data_path: str = "datasets/table.csv",
        target: str = "target",
        task: Task = "auto",
        id_column: str | None = None,
        test_path: str | None = None,
        categorical: Sequence[str] = (),
        leave_out: Sequence[str] = (),
        separator: str = "auto",
        decimal: str = "auto",
        encoding: str = "auto",
        missing: Sequence[str] = (),
        date_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.target, self.task, self.id_column = target, task, id_column
        self.categorical, self.leave_out = categorical, leave_out
        self.reading = {name: self.hparams[name] for name in OPTIONS}

    @property
    def source(self) -> str:
        return self.hparams.data_path

    @property
    def is_there(self) -> bool:
        return Path(self.source).expanduser().is_file()

    def read_splits(self) -> tuple[pyarrow.Table, Rows]:
        texts = [*self.categorical, *self.leave_out, *filter(None, [self.id_column])]
        tables, numbers = [], []
        for path in filter(None, (self.source, self.hparams.test_path)):
            table = read_table(path, **self.reading, texts=texts)
            if self.id_column in table.column_names:
                refuse_twice(table[self.id_column], f"{path}, column {self.id_column}")
            table, rows = with_targets(table, self.target, path)
            tables.append(table)
            numbers.append(rows)
        self.row_numbers = np.concatenate(numbers)
        test_path = self.hparams.test_path
        needed = {*tables[0].column_names} - {*self.leave_out}
        if lacking := sorted(needed - {*tables[-1].column_names}):
            raise UserError(f"{test_path} lacks columns of {self.source}: {', '.join(lacking)}.")
        try:
            whole = pyarrow.concat_tables(tables, promote_options="permissive")
        except pyarrow.ArrowException as error:
            raise UserError(f"{test_path} has other values than {self.source}: {error}") from error
        first = len(tables[0])
        if len(tables) == 1:
            return whole, {}
        places = torch.arange(len(whole))
        return whole, {"train": places[:first], "test": places[first:]}
