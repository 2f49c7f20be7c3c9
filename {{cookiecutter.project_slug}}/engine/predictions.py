"""Writes what `predict` found to one file."""

import csv
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.distributed import all_gather_object, get_world_size, is_initialized

from callbacks.pictures import draw_grid
from engine.errors import UserError

NUM_PICTURES = 64


class Predictions(BasePredictionWriter):
    """One row per input, in the order of the data: its name (path or index), then what the system's
    ``predict_step`` gave for it.

    A vector becomes one column per entry; a predicted class also gets its name. Images become a
    grid in a PNG file beside the table.

    Args:
        output: a ``.csv`` or ``.parquet`` (needs pyarrow) file; by default ``predictions.csv`` in
            the run folder of the checkpoint.
    """

    def __init__(self, output: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        if output is not None and Path(output).suffix not in (".csv", ".parquet"):
            raise UserError(f"--predictions.output {output}: the name must end in .csv or .parquet")
        if output is not None and output.endswith(".parquet") and not find_spec("pyarrow"):
            raise UserError(
                f"--predictions.output {output}: Parquet files need pyarrow: "
                'python -m pip install -e ".[parquet]"'
            )
        self.output = output
        self.written: list[str] = []

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        columns = {
            k: torch.cat([p[k] for p in predictions if k in p]).cpu() for k in predictions[0]
        }
        pictures = {k: columns.pop(k)[:NUM_PICTURES] for k in [*columns] if columns[k].ndim == 4}
        [batches] = batch_indices  # of the only data loader
        columns["index"] = torch.tensor([index for batch in batches for index in batch])
        shown = max(map(len, pictures.values()), default=0)  # a system may give the first only
        pictures["index"] = columns["index"][:shown]
        columns, pictures = gather(columns), gather(pictures)
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        index = columns.pop("index").tolist()
        del pictures["index"]

        output = Path(self.output or Path(trainer.default_root_dir, "predictions.csv"))
        output.parent.mkdir(parents=True, exist_ok=True)
        for name, images in pictures.items():
            path = output.with_name(f"{output.stem}_{name}.png")
            images = images[:NUM_PICTURES]
            draw_grid(images, [""] * len(images)).save(path)
            self.written.append(f"Pictures of {len(images)} predictions: {path}")
        write_table(output, self.rows(trainer, index, columns))
        self.written.append(f"{len(index)} predictions: {output}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print(*self.written, sep="\n", end="\n" if self.written else "")  # after the progress bar
        self.written.clear()

    def rows(
        self, trainer: Trainer, index: list[int], columns: dict[str, Tensor]
    ) -> dict[str, list]:
        data = trainer.datamodule
        names: list[str] | None = getattr(data, "predict_names", None)
        classes: list[str] = getattr(data, "class_names", [])
        # A file's name need not be text.
        given = [os.fsencode(names[i]).decode(errors="replace") if names else str(i) for i in index]
        table: dict[str, list] = {"input": given}
        for key, values in columns.items():
            if values.ndim == 1:
                table[key] = values.tolist()
                if key == "prediction" and classes:
                    table["class_name"] = [classes[i] for i in table[key]]
                continue
            named = key == "probability" and classes
            for i, column in enumerate(values.float().T.tolist()):
                table[f"{key}_{classes[i] if named else i}"] = column
        return table


def gather(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of all processes, by their index."""
    parts = [columns]
    if is_initialized():
        parts = [{}] * get_world_size()
        all_gather_object(parts, columns)
    columns = {k: torch.cat([part[k] for part in parts]) for k in columns}
    order = columns["index"].argsort()
    return {k: values[order] for k, values in columns.items()}


def write_table(path: Path, table: dict[str, list]) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(table), path)
