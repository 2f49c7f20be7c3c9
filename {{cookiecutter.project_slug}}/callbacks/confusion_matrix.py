"""Counts at test which class is taken for which."""

import csv
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from matplotlib.figure import Figure
from PIL import Image
from torchmetrics.classification import MulticlassConfusionMatrix

from callbacks.pictures import log_picture

MOST_NUMBERS = 20  # classes up to which there are numbers in the picture


class ConfusionMatrix(Callback):
    """Writes ``confusion_matrix.csv`` into the run folder, a row for each true class and a column
    for each predicted one, and a picture of it there and into the logger. For classifiers.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.matrix: Any = None
        self.stands_aside = False
        self.written = ""

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.stands_aside or dataloader_idx:
            return
        try:
            # By the strategy: in its precision, and where weights are sharded with all of them.
            probability = trainer.strategy.predict_step(batch, batch_idx)["probability"]
            if self.matrix is None:
                self.matrix = MulticlassConfusionMatrix(probability.shape[1]).to(probability.device)
            self.matrix.update(probability, batch[1])
        except Exception as error:  # a decoration, which must not end a test
            rank_zero_warn(f"No confusion matrix, which takes classes and probabilities: {error!r}")
            self.stands_aside, self.matrix = True, None

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.matrix is None:
            return
        counts = self.matrix.compute()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        names = getattr(pl_module, "class_names", None) or [*map(str, range(len(counts)))]
        path = Path(trainer.default_root_dir, "confusion_matrix.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            csv.writer(file).writerows([["true class", *names], *rows])
        side = min(max(6, len(names) / 3), 40)  # inches; Pillow refuses larger pictures
        figure = Figure(figsize=(side, side), layout="constrained")
        labels = [name.replace("$", r"\$") for name in names]  # else it is taken for mathematics
        few = len(names) <= MOST_NUMBERS
        self.matrix.plot(counts, figure.subplots(), few, labels, cmap="Blues")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path.with_suffix(".png"))
        picture = Image.open(path.with_suffix(".png")).convert("RGB")
        log_picture(trainer, "test/confusion_matrix", picture)
        self.written = f"Confusion matrix: {path}"

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.written:
            print(self.written)  # after the progress bar
