"""Metrics of a table's predictions."""

import warnings

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, R2Score
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score
from torchmetrics.utilities.data import dim_zero_cat


class AUROC(MulticlassAUROC):
    """The mean over the classes that occur: torchmetrics counts 0 for each that does not."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None)

    def compute(self) -> Tensor:  # type: ignore[override]
        present = dim_zero_cat(self.target).unique()
        if len(present) < 2:  # not defined
            return torch.full((), torch.nan, device=present.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples in targets")
            return super().compute()[present].mean()


def usual(num_classes: int) -> dict[str, Metric]:
    """The metrics by their names; without classes those of a regression."""
    if num_classes:
        return {"auroc": AUROC(num_classes), "f1": MulticlassF1Score(num_classes)}
    rmse = MeanSquaredError(squared=False)
    return {"mae": MeanAbsoluteError(), "rmse": rmse, "r2": R2Score()}
