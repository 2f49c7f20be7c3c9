"""Classification or regression of the rows of a table, whichever the target asks for."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine import losses
from models.system import System, weight_of
from models.table_metrics import usual

Batch = tuple[tuple[Tensor, Tensor], Tensor]  # numbers (B, N) and codes (B, C), targets (B,)


class Tabular(System):
    """Trains a network with cross entropy, where there are classes, or else with the squared error
    of targets that are scaled to mean 0 and deviation 1. Predictions and metrics have its unit.

    Args:
        network: maps numbers and codes to logits (B, classes), or to one number (B, 1).
        loss: of logits and class indices, or of numbers (B,) and scaled targets.
        class_weights: weight of each class in the loss; balanced: the rarer, the larger.
        class_names: by default none: a regression. The data module provides them.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        class_weights: list[float] | Literal["balanced"] | None = None,
        class_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion: Any = loss or (nn.CrossEntropyLoss() if class_names else nn.MSELoss())
        self.class_weights, self.class_names = class_weights, class_names or []
        self.names = {"prediction": self.class_names, "probability": self.class_names}
        self.metrics = {**usual(len(self.class_names)), **self.metrics}
        # R2 is of scaled targets: squares of numbers such as years leave float32 too few digits.
        self.of_scaled = {"r2": self.metrics.pop("r2")} if not self.class_names else {}
        losses.prepare(self, Tabular, len(self.class_names))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_std", torch.ones(()))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data: Any = self.trainer.datamodule
        if stage == "fit" and not self.class_names and hasattr(data, "train_targets"):
            self.target_mean.fill_(data.train_targets.mean())
            self.target_std.fill_(data.train_targets.std() or 1.0)  # 0: all are the same

    def loss(self, batch: Batch) -> Tensor:
        inputs, targets = batch
        outputs = self(*inputs)
        if self.class_names:
            if not self.training:
                self.add_to_mean("acc", (outputs.argmax(dim=1) == targets).sum(), len(targets))
                self.update_metrics(outputs.softmax(dim=1), targets)
                self.batch_weight = weight_of(self.criterion, targets)
            return self.criterion(outputs, targets)
        outputs, targets = outputs.squeeze(1), targets.float()
        scaled = (targets - self.target_mean) / self.target_std
        if not self.training:
            self.update_metrics(outputs * self.target_std + self.target_mean, targets)
            self.update_metrics(outputs, scaled, self.of_scaled)
        return self.criterion(outputs, scaled)

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Class index (B,) and probabilities (B, classes), or the predicted numbers (B,)."""
        outputs = self(*batch[0])
        if self.class_names:
            probability = outputs.softmax(dim=1)
            return {"prediction": probability.argmax(dim=1), "probability": probability}
        return {"prediction": outputs.squeeze(1) * self.target_std + self.target_mean}
