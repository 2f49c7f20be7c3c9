"""What the systems have in common whose targets are classes: names, and a loss that weighs them."""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional

from models.system import System


class ClassSystem(System):
    """Base of the systems with classes, trained with cross entropy.

    Args:
        loss: mean loss of logits (B, classes, ...) and class indices (B, ...), such as
            ``torch.nn.CrossEntropyLoss`` with its ``label_smoothing``.
        class_weights: of the classes in the loss; balanced: less, the more often a class is there.
        class_names: for metrics, predictions and pictures; the data module knows them.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        class_weights: list[float] | Literal["balanced"] | None = None,
        class_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion: Any = loss or nn.CrossEntropyLoss()
        if class_names and len(class_names) == 1:
            raise MisconfigurationException(
                f"The data has one class, {class_names[0]}: a classifier needs two or more"
            )
        self.class_names = class_names or []
        self.names = {"prediction": self.class_names, "probability": self.class_names}
        self.class_weights = class_weights
        self.weigh(class_weights)

    def weigh(self, weights: list[float] | Literal["balanced"] | None) -> None:
        if weights and not hasattr(self.criterion, "weight"):
            raise MisconfigurationException(
                f"class_weights: {type(self.criterion).__name__} has no argument weight"
            )
        if isinstance(weights, list):
            self.criterion.weight = torch.tensor(weights, device=self.device)
            self.hparams["class_weights"] = weights  # what balanced means, for the checkpoint

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.class_weights == "balanced" and stage == "fit":
            counts = self.trainer.datamodule.class_counts.clamp(min=1)
            self.weigh((counts.sum() / len(counts) / counts).tolist())

    def try_class_loss(self) -> None:
        weight = getattr(self.criterion, "weight", None)
        classes = len(self.class_names) or (3 if weight is None else len(weight))
        targets = torch.arange(classes + 1) % classes  # one more: else a loss might broadcast them
        right = 9.0 * functional.one_hot(targets)
        takes = f"logits of {classes} classes and indices"
        try_loss(self.criterion, targets, right, -right, takes=takes)

    def check_logits(self, logits: Tensor) -> None:
        if self.class_names and logits.shape[1] != len(self.class_names):
            raise MisconfigurationException(
                f"The network gives {logits.shape[1]} logits for {len(self.class_names)} classes"
            )


def try_loss(loss: Any, targets: Tensor, right: Tensor, *wrong: Tensor, takes: str) -> None:
    """Some losses take other targets, or log-probabilities, and would be wrong without a word."""
    if getattr(loss, "reduction", "mean") != "mean":
        raise MisconfigurationException("loss: its reduction must be mean, the batch's")
    try:
        sensible = all(loss(right, targets) < loss(other, targets) for other in wrong)
    except (RuntimeError, ValueError, IndexError, TypeError):
        sensible = False
    if not sensible or isinstance(loss, nn.NLLLoss):
        raise MisconfigurationException(f"loss: {type(loss).__name__} does not take {takes}")
