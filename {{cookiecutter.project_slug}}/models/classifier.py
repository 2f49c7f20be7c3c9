"""Classification with any network that gives a logit for each class."""

from typing import Any, Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional

from models.system import System, weight_of

Batch = tuple[Tensor, Tensor]  # inputs (B, ...), class indices (B,)


class Classifier(System):
    """Trains a network with cross entropy.

    Args:
        network: maps inputs (B, ...) to logits (B, num_classes, ...).
        loss: mean loss of logits (B, num_classes, ...) and class indices (B, ...) or, of training
            batches that `augment` has mixed, probabilities (B, num_classes, ...).
        class_weights: weight of each class in the loss; balanced: the rarer, the larger.
        class_names: for predictions and pictures; the data module provides them.
    """

    # The Brier score (Brier 1950): squared distance of the probabilities from the one-hot label, 0
    # to 2. It compares epochs more finely than the accuracy, above all on few samples.
    monitor = "val/brier"
    tolerances = {"val/brier": 0.5}

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
        self.class_weights, self.class_names = class_weights, class_names or []
        self.names = {"prediction": self.class_names, "probability": self.class_names}
        if len(self.class_names) == 1:
            only = f"The data has one class, {self.class_names[0]}: a classifier needs two or more"
            raise MisconfigurationException(only)
        if loss or class_weights:
            # Imported here: without a loss or weights, this file and system.py run on their own.
            from engine import losses

            losses.prepare(self, Classifier, len(self.class_names) or None)

    def loss(self, batch: Batch) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        if labels.is_floating_point() and not (self.training and labels.shape == logits.shape):
            raise MisconfigurationException("The labels are floats: give class indices (int64)")
        self.check(logits)
        if not self.training:
            known = labels >= 0  # negative: none, as the loss's `ignore_index`
            count = known.sum()
            self.add_to_mean("acc", (logits.argmax(dim=1) == labels).sum(), count)
            probability = logits.softmax(dim=1)
            one_hot = functional.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1)
            distance = (probability - one_hot).square().sum(dim=1)
            self.add_to_mean("brier", (distance * known).sum(), count)
            self.batch_weight = weight_of(self.criterion, labels)
            self.update_metrics(probability, labels)
        return self.criterion(logits, labels)

    def check(self, logits: Tensor) -> None:
        given, known = logits.shape[1], len(self.class_names)
        if known and given != known:
            raise MisconfigurationException(f"The network gives {given} logits for {known} classes")

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Class index (B,) and probabilities (B, num_classes)."""
        probability = self(batch[0]).softmax(dim=1)
        return {"prediction": probability.argmax(dim=1), "probability": probability}

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images (B, C, H, W) and captions: the predicted class, and the label where it differs."""
        images, labels = batch
        name = self.class_names.__getitem__ if self.class_names else str
        pairs = zip(self(images).argmax(dim=1).tolist(), labels.tolist(), strict=True)
        # A label below 0: unknown.
        captions = [name(p) if t == p or t < 0 else f"{name(p)}\n({name(t)})" for p, t in pairs]
        return images, captions
