"""Writes what `predict` found to one file."""

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.distributed import all_gather_object, get_world_size

from callbacks.pictures import draw_grid
from errors import UserError

NUM_PICTURES = 64


class Predictions(BasePredictionWriter):
    """One row an input, in the order of the data: its name (path or index), then what the system's
    ``predict_step`` gave for it.

    A vector becomes a column an entry, a predicted class also its name. Images become a grid in a
    PNG file beside the table.

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

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        columns = {k: torch.cat([p[k] for p in predictions]).cpu() for k in predictions[0]}
        [batches] = batch_indices  # of the only data loader
        columns["index"] = torch.tensor([index for batch in batches for index in batch])
        parts: list[dict[str, Tensor]] = [columns]
        if trainer.world_size > 1:
            parts = [{}] * get_world_size()
            all_gather_object(parts, columns)
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        columns = {k: torch.cat([part[k] for part in parts]) for k in columns}
        index, order = columns.pop("index").sort()
        columns = {k: values[order] for k, values in columns.items()}

        output = Path(self.output or Path(trainer.default_root_dir, "predictions.csv"))
        output.parent.mkdir(parents=True, exist_ok=True)
        for name in [k for k, values in columns.items() if values.ndim == 4]:
            images = columns.pop(name)[:NUM_PICTURES]
            picture = output.with_name(f"{output.stem}_{name}.png")
            draw_grid(images, [""] * len(images)).save(picture)
            print(f"Pictures of {len(images)} predictions: {picture}")
        write_table(output, self.rows(trainer, index.tolist(), columns))
        print(f"{len(index)} predictions: {output}")

    def rows(
        self, trainer: Trainer, index: list[int], columns: dict[str, Tensor]
    ) -> dict[str, list]:
        data = trainer.datamodule
        names: list[str] | None = getattr(data, "predict_names", None)
        classes: list[str] = getattr(data, "class_names", [])
        table: dict[str, list] = {"input": [names[i] if names else str(i) for i in index]}
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
