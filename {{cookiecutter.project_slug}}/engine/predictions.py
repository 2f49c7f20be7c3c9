"""Writes what `predict` found to one table: rows of all processes, in the order of the data."""

import os
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torch.distributed import all_gather_object, get_world_size, is_initialized

from engine.errors import UserError
from engine.files import write_rows, written_whole
from engine.runs import make_writable

PLACE = ("_loader", "_index", "_process")  # of a row, in the data


class Predictions(BasePredictionWriter):
    """One row per input, in the order of the data: its name (path or index), the data module's
    ``predict_columns``, then what ``predict_step`` gave: a dict of tensors, or of lists of texts.

    A vector becomes a column per entry, named by the system's ``names`` if it has some. What has
    more dimensions goes to the data module's ``save_outputs``, or is left out with a message. With
    several data loaders each row has the number of its loader.

    Args:
        output: a ``.csv`` or ``.parquet`` (needs pyarrow) file; by default ``predictions.csv`` in
            the run folder of the checkpoint.
    """

    def __init__(self, output: str | None = None) -> None:
        super().__init__(write_interval="batch")
        if output is not None and Path(output).suffix not in (".csv", ".parquet"):
            raise UserError(f"--predictions.output {output}: the name must end in .csv or .parquet")
        if output is not None and output.endswith(".parquet") and not find_spec("pyarrow"):
            raise UserError(
                f"--predictions.output {output}: Parquet files need pyarrow: "
                'python -m pip install -e ".[parquet]"'
            )
        self.output = output
        self.parts: list[dict[str, Any]] = []
        self.counts: dict[int, int] = {}
        self.kinds: str | None = None  # of the columns, with their shapes
        self.written = ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict" or trainer.fast_dev_run or not trainer.is_global_zero:
            return
        make_writable(self.path(trainer).parent, "--predictions.output names another file")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.predict_loop.return_predictions = False  # they would fill the memory
        self.parts, self.counts, self.kinds = [], {}, None

    def path(self, trainer: Trainer) -> Path:
        return Path(self.output or f"{trainer.default_root_dir}/predictions.csv").expanduser()

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, indices: Any, *rest: Any
    ) -> None:
        _, _, number = rest  # the batch, its number and that of its loader
        found = outputs if isinstance(outputs, dict) else {"prediction": outputs}
        if each := getattr(trainer.datamodule, "rows_per_input", 0):
            found = {name: in_rows(value, each) for name, value in found.items()}
        each = each or 1
        columns = {k: v for k, v in found.items() if is_column(v)}
        others = {name: value for name, value in found.items() if name not in columns}
        step = f"{type(pl_module).__name__}.predict_step"
        tensors = {k: v for k, v in others.items() if isinstance(v, Tensor) and v.ndim}
        sizes = {len(values) for values in (columns or tensors).values()}
        if len(sizes) != 1:
            raise UserError(
                f"{step} must give a dict of tensors with a row for each input; it "
                f"gives {', '.join(f'{k} ({len(v)})' for k, v in columns.items()) or 'none'}"
            )
        kinds = ", ".join(f"{k} {(*getattr(v, 'shape', v[:1])[1:],)}" for k, v in columns.items())
        if self.kinds not in (None, kinds):
            raise UserError(
                f"{step} gives {self.kinds} for some batches, {kinds} for others: a table needs "
                "the same. Pad them, or give them one more dimension, for the data's save_outputs"
            )
        self.kinds = kinds
        size, first = sizes.pop() // each, self.counts.get(number, 0)
        self.counts[number] = first + size
        # An iterable data set has no indices: its rows are counted.
        known = len(indices or []) == size
        if trainer.world_size > 1 and not known:
            raise UserError("Rows of iterable data have no order in several processes: use one.")
        index = torch.tensor(indices if known else range(first, first + size))
        index = (index[:, None] * each + torch.arange(each)).flatten()
        trainer.predict_loop.current_batch_indices = []  # not those of the next loader
        loader = torch.full_like(index, number)
        place = loader, index, torch.full_like(index, trainer.global_rank)
        self.parts.append(columns | dict(zip(PLACE, place, strict=True)))
        if others:
            self.save(trainer, others, index.tolist())

    def save(self, trainer: Trainer, outputs: dict[str, Any], index: list[int]) -> None:
        """Hands what fits into no table to the data module. `index` says of which inputs."""
        data: Any = trainer.datamodule
        if not hasattr(data, "save_outputs"):
            text = f"Not in the table, since no number or vector: {', '.join(outputs)}"
            if not self.kinds:
                raise UserError(f"{text}. Nothing else: flatten it, or give the data save_outputs")
            if len(self.parts) == 1:
                rank_zero_info(text)
        elif not trainer.fast_dev_run:
            number = int(self.parts[-1]["_loader"][0])
            folder = self.path(trainer).parent / (f"loader_{number}" if number else "")
            folder.mkdir(exist_ok=True)
            data.save_outputs(outputs, names_of(data, index, number > 0), folder)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = dict.fromkeys(name for part in self.parts for name in part)
        columns = gather({k: join([part[k] for part in self.parts]) for k in names})
        self.parts.clear()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        self.keep(trainer, rows(columns, trainer.datamodule, pl_module))

    def keep(self, trainer: Trainer, table: dict[str, list]) -> None:
        """Writes the table, given by column."""
        output = self.path(trainer)
        with written_whole(output) as partial:
            write_table(partial, table)
        count = len(table["input"])
        self.written = f"{count} prediction{'s' * (count != 1)}: {output}"

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.written:
            print(self.written)  # after the progress bar
        self.written = ""


def is_column(values: Any) -> bool:
    """Whether it is a number, a vector or a text for each row."""
    if isinstance(values, list):
        return all(isinstance(value, str) for value in values)
    return isinstance(values, Tensor) and values.ndim in (1, 2) and not values.is_complex()


def in_rows(values: Any, each: int) -> Any:
    """A row for each entry of the second dimension, if it has so many; else the same in all."""
    if not isinstance(values, Tensor) or not values.ndim:
        return values
    own = values.shape[1:2] == (each,)
    return values.flatten(0, 1) if own else values.repeat_interleave(each, dim=0)


def names_of(data: Any, index: list[int], several: bool) -> list[str]:
    """The names of these inputs: their numbers, if there are several loaders, or no names."""
    names = [] if several else getattr(data, "predict_names", None) or []
    return [names[i] if names else str(i) for i in index]


def join(parts: list[Any]) -> Any:
    return sum(parts, []) if isinstance(parts[0], list) else torch.cat(parts).cpu()


def rows(columns: dict[str, Any], data: Any, system: LightningModule) -> dict[str, list]:
    """The table by column. The data module knows the names of what is predicted."""
    loader, index, _ = (columns.pop(name).tolist() for name in PLACE)
    several = len(set(loader)) > 1
    # A file's name need not be text.
    given = [os.fsencode(name).decode(errors="replace") for name in names_of(data, index, several)]
    place: dict[str, list] = {"loader": loader, "input": given} if several else {"input": given}
    table: dict[str, list] = {}
    for key, values in columns.items():
        names = dict(enumerate(getattr(system, "names", {}).get(key, [])))
        if isinstance(values, list):
            table[key] = values
            continue
        if values.ndim == 1:
            table[key] = values.tolist()
            if names and not values.is_floating_point():
                table[f"{key}_name"] = [names.get(i, "") for i in table[key]]
            continue
        for i, column in enumerate(values.T.tolist()):
            table[f"{key}_{names[i] if len(names) == values.shape[1] else i}"] = column
    for name, known in {} if several else getattr(data, "predict_columns", {}).items():
        free = f"data_{name}" if name in table.keys() | place.keys() else name
        place[free] = [known[i] for i in index]
    return place | table


def gather(columns: dict[str, Any]) -> dict[str, Any]:
    """The rows of all processes, in the order of the data."""
    parts = [columns]
    if is_initialized():
        parts = [{}] * get_world_size()
        all_gather_object(parts, columns)
    columns = {k: join([part[k] for part in parts]) for k in columns}
    places = [*zip(*(columns[name].tolist() for name in PLACE), strict=True)]
    order = sorted(range(len(places)), key=places.__getitem__)
    ordered = ([v[i] for i in order] if isinstance(v, list) else v[order] for v in columns.values())
    return dict(zip(columns, ordered, strict=True))


def write_table(path: Path, table: dict[str, list]) -> None:
    if path.suffix == ".csv":
        write_rows(path, chain([table], zip(*table.values(), strict=True)))
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(table), path)
