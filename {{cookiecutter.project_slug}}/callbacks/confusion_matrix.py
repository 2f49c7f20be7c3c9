"""Confusion matrix and accuracy by class, after a test."""

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from callbacks.pictures import log_picture
from engine.charts import Charts
from engine.files import may_be_missing, write_rows

MOST_CLASSES = 20  # with more, the picture shows no numbers, and only the worst are printed


class ConfusionMatrix(Charts):
    """Writes ``confusion_matrix.csv`` into the run folder, a row for each true class and a column
    for each predicted one, and ``accuracy_by_class.csv``; draws the matrix there and in the logger;
    prints how many samples of each class were right. Does nothing where a system predicts no
    ``probability``, or a sample has several classes."""

    name = "confusion matrix, which takes classes and probabilities"  # in a warning

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self.matrix: Any = None

    def add(self, trainer: Trainer, batch: Any, outputs: Any, batch_idx: int) -> None:
        if not isinstance(outputs, dict) or "probability" not in outputs or batch[1].ndim > 1:
            self.stands_aside = True  # no classes, or several at once
            return
        probability, known = outputs["probability"], batch[1] >= 0
        if self.matrix is None:
            self.matrix = MulticlassConfusionMatrix(probability.shape[1]).to(probability.device)
        predicted: Any = outputs.get("prediction", probability)
        if predicted.ndim == 1 and (predicted % 1).any():
            raise ValueError("prediction is no class")
        self.matrix.update(predicted[known], batch[1][known])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stands_aside or self.matrix is None:
            return
        counts = self.matrix.compute()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        run = Path(trainer.default_root_dir)
        with may_be_missing(run / "confusion_matrix.csv"):
            self.write(trainer, pl_module, counts, run)

    def write(self, trainer: Trainer, pl_module: Any, counts: Tensor, run: Path) -> None:
        names = getattr(pl_module, "class_names", None) or [*map(str, range(len(counts)))]
        rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
        write_rows(run / "confusion_matrix.csv", [["true class", *names], *rows])
        self.draw(trainer, counts, names)
        counted = zip(names, counts.sum(dim=1).tolist(), counts.diagonal().tolist(), strict=True)
        table = [(name, size, hits, hits / size if size else "") for name, size, hits in counted]
        header = ["class", "samples", "correct", "accuracy"]
        write_rows(run / "accuracy_by_class.csv", [header, *table])
        kind = "Right by class"
        if len(names) > MOST_CLASSES:
            kind = "The worst classes"
            table = sorted((one for one in table if one[1]), key=lambda one: one[3])[:5]
        shown = ", ".join(f"{name}: {right} of {size}" for name, size, right, _ in table)
        self.written = f"{kind}: {shown}\nConfusion matrix: {run / 'confusion_matrix.png'}"

    def draw(self, trainer: Trainer, counts: Tensor, names: list[str]) -> None:
        from matplotlib.figure import Figure  # here, since it takes half a second

        side = min(max(6, len(names) / 3), 40)  # inches; Pillow refuses larger pictures
        figure = Figure(figsize=(side, side), layout="constrained")
        labels, few = [as_label(name) for name in names], len(names) <= MOST_CLASSES
        self.matrix.plot(counts, figure.subplots(), few, labels, cmap="Blues")
        save_figure(trainer, figure, "confusion_matrix")


def as_label(name: str) -> str:
    return name.replace("$", r"\$")  # else it is taken for mathematics


def save_figure(trainer: Trainer, figure: Any, name: str) -> None:
    """Writes a figure of Matplotlib into the run folder, and sends it to the loggers."""
    path = Path(trainer.default_root_dir, f"{name}.png")
    with may_be_missing(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path)
        log_picture(trainer, f"test/{name}", Image.open(path).convert("RGB"))
