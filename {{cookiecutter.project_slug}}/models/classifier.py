"""Classification with any network that gives a logit for each class."""

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from models.system import System

Batch = tuple[Tensor, Tensor]  # inputs (B, ...), class indices (B,)


class Classifier(System):
    """Trains a network with cross entropy.

    Args:
        network: maps inputs (B, ...) to logits (B, num_classes).
        loss: of logits and class indices, in the place of cross entropy.
        label_smoothing: see ``torch.nn.CrossEntropyLoss``.
        class_weights: of the classes in the loss; balanced: less, the more samples a class has.
        class_names: for predictions and pictures; the data module knows them.
    """

    monitor = "val/acc"
    mode = "max"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        class_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion: Any = loss or nn.CrossEntropyLoss()
        if label_smoothing:
            self.set_up("label_smoothing", "label_smoothing", label_smoothing)
        if getattr(self.criterion, "reduction", "mean") != "mean":
            raise MisconfigurationException("loss: its reduction must be mean, the batch's")
        self.class_names = class_names or []
        self.names = {"prediction": self.class_names, "probability": self.class_names}
        self.class_weights = class_weights
        self.weigh(class_weights)

    def set_up(self, option: str, name: str, value: Any) -> None:
        """Sets an attribute of the loss, which has to have it."""
        if not hasattr(self.criterion, name):
            kind = type(self.criterion).__name__
            raise MisconfigurationException(f"{option}: {kind} has no argument {name}")
        setattr(self.criterion, name, value)

    def weigh(self, weights: list[float] | Literal["balanced"] | None) -> None:
        if isinstance(weights, list):
            self.set_up("class_weights", "weight", torch.tensor(weights, device=self.device))
            self.hparams["class_weights"] = weights  # what balanced means, for the checkpoint

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.class_weights == "balanced" and stage == "fit":
            counts = self.trainer.datamodule.class_counts.clamp(min=1)
            self.weigh((counts.sum() / len(counts) / counts).tolist())

    def loss(self, batch: Batch) -> Tensor:
        inputs, labels = batch
        logits = self(inputs).float()
        if self.class_names and logits.shape[1] != len(self.class_names):
            raise MisconfigurationException(
                f"The network gives {logits.shape[1]} logits for {len(self.class_names)} classes"
            )
        if not self.training:
            self.add("acc", (logits.argmax(dim=1) == labels).sum(), len(labels))
            self.measure(logits, labels)
        return self.criterion(logits, labels)

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Class index (B,) and probabilities (B, num_classes)."""
        probability = self(batch[0]).softmax(dim=1)
        return {"prediction": probability.argmax(dim=1), "probability": probability}

    @property
    def backbone(self) -> nn.Module:
        """What Lightning's `BackboneFinetuning` freezes at first."""
        return self.network.get_submodule("backbone")

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images, captioned with the prediction, where it is wrong also with '(label)'."""
        images, labels = batch
        name = self.class_names.__getitem__ if self.class_names else str
        pairs = zip(self(images).argmax(dim=1).tolist(), labels.tolist(), strict=True)
        # A label of -1 is not known.
        captions = [name(p) if t in (p, -1) else f"{name(p)}\n({name(t)})" for p, t in pairs]
        return images, captions
