"""Counts at test which class is taken for which."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from callbacks.pictures import log_picture


class ConfusionMatrix(Callback):
    """Writes ``confusion_matrix.csv`` into the run folder, a row for each true class and a column
    for each predicted one, and a picture of it there and into the logger. For classifiers.
    """

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.counts: Any = 0  # (num_classes, num_classes)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *indices: int
    ) -> None:
        probability = pl_module.predict_step(batch, *indices)["probability"]
        size = probability.shape[1]
        pairs = batch[1] * size + probability.argmax(dim=1)
        self.counts = self.counts + pairs.bincount(minlength=size * size).view(size, size)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = trainer.strategy.reduce(self.counts, reduce_op="sum").cpu()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        names = getattr(trainer.datamodule, "class_names", None) or [*map(str, range(len(counts)))]
        path = Path(trainer.default_root_dir, "confusion_matrix.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            csv.writer(file).writerows([["true class", *names], *rows])

        from matplotlib.figure import Figure  # slow to import

        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set(title="share of each true class (rows) by predicted class (columns)")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1))
        figure.savefig(path.with_suffix(".png"))
        picture = Image.open(path.with_suffix(".png")).convert("RGB")
        log_picture(trainer, "test/confusion_matrix", picture)
        print(f"Confusion matrix: {path}")
