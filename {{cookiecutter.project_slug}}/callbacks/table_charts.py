"""Charts of a table's predictions, and the importance of its columns, after a test."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import CatMetric

from callbacks.confusion_matrix import as_label, save_figure
from engine.charts import Charts
from engine.files import may_be_missing, write_rows

MOST_COLUMNS = 30  # in the picture; the table has all


class TableCharts(Charts):
    """Writes into the run folder, and pictures also into the logger:

    - ``predicted.png``: predictions against targets of a regression; of a classification how often
      the predicted class is right, against the probability that it was given (calibration),
    - ``importance.csv`` and ``.png``: how much the loss (log loss or squared error) rises when the
      values of a column are shuffled (permutation importance, Breiman 2001).

    Args:
        rounds: how often each column is shuffled.
    """

    name = "charts, which take rows of a table"  # in a warning

    def __init__(self, rounds: int = 3) -> None:
        self.rounds = rounds

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        # Predicted and true, or probability and whether it was right; from all processes.
        self.pairs = CatMetric("disable").to(pl_module.device)
        self.rises: Any = 0.0
        self.rows = 0

    def add(self, trainer: Trainer, batch: Any, outputs: Any, batch_idx: int) -> None:
        self.pairs.update(paired(outputs, batch[1]))
        rise = self.shuffled(trainer, batch, batch_idx) - errors(outputs, batch[1])
        self.rises = self.rises + rise
        self.rows += len(batch[1])

    def shuffled(self, trainer: Trainer, batch: Any, batch_idx: int) -> Tensor:
        """The summed error (columns,) when a column is shuffled."""
        (numbers, codes), targets = batch
        preparation: Any = trainer.lightning_module.preparation
        generator = torch.Generator().manual_seed(batch_idx)
        sums = []
        for i in range(len(preparation.numbers) + len(preparation.codes)):
            total = torch.zeros((), device=targets.device)
            for _ in range(self.rounds):
                order = torch.randperm(len(targets), generator=generator).to(targets.device)
                inputs = [numbers.clone(), codes.clone()]
                if i < len(preparation.numbers):
                    for j in preparation.places(i):
                        inputs[0][:, j] = numbers[order, j]
                else:
                    j = i - len(preparation.numbers)
                    inputs[1][:, j] = codes[order, j]
                outputs = trainer.strategy.predict_step((tuple(inputs), targets), batch_idx)
                total = total + errors(outputs, targets) / self.rounds
            sums.append(total)
        return torch.stack(sums)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.stands_aside or not self.rows:
            return
        strategy: Any = trainer.strategy
        rows = torch.tensor(float(self.rows), device=pl_module.device)
        count = strategy.reduce(rows, reduce_op="sum")
        rises = (strategy.reduce(self.rises, reduce_op="sum") / count).tolist()
        pairs = self.pairs.compute().cpu()
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return
        preparation: Any = pl_module.preparation
        names = [*preparation.numbers, *preparation.codes]
        ranked = sorted(zip(rises, names, strict=True), reverse=True)
        path = Path(trainer.default_root_dir, "importance.csv")
        with may_be_missing(path):
            write_rows(path, [("column", "rise of the loss"), *((n, r) for r, n in ranked)])
            self.written = f"Importance of the columns: {path}"
        shown = ranked[:MOST_COLUMNS][::-1]
        figure = Figure(figsize=(6, 1 + len(shown) / 4), layout="constrained")
        axes = figure.subplots()
        axes.barh([as_label(name) for _, name in shown], [rise for rise, _ in shown])
        axes.set_xlabel("rise of the loss when the column is shuffled")
        save_figure(trainer, figure, "importance")
        save_figure(trainer, draw(pairs, pl_module), "predicted")


def errors(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    """The summed log loss or squared error."""
    if "probability" in outputs:
        given = outputs["probability"].float().gather(1, targets.unsqueeze(1))
        return -given.clamp(min=1e-7).log().sum()
    return (outputs["prediction"].float() - targets).square().sum()


def paired(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    """(B, 2): predicted and true numbers, or probability of the prediction, and if it is true."""
    if "probability" in outputs:
        right = outputs["prediction"] == targets
        return torch.stack([outputs["probability"].float().amax(dim=1), right.float()], dim=1)
    return torch.stack([outputs["prediction"].float(), targets.float()], dim=1)


def draw(pairs: Tensor, system: Any) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    if system.class_names:
        bins = (pairs[:, 0] * 10).long().clamp(max=9)
        known = [pairs[bins == i].mean(dim=0) for i in range(10) if (bins == i).any()]
        points, low, high = torch.stack(known), 1 / len(system.class_names), 1.0
        axes.plot(points[:, 0], points[:, 1], marker="o")
        axes.set(xlabel="probability of the predicted class", ylabel="share that is right")
    else:
        low, high = pairs.min().item(), pairs.max().item()
        axes.scatter(pairs[:, 1], pairs[:, 0], s=8, alpha=0.5)
        axes.set(xlabel="true", ylabel="predicted")
    axes.plot([low, high], [low, high], color="gray", linewidth=1)  # all is right
    return figure
