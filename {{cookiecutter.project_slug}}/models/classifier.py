"""Classification with any network that gives a logit for each class."""

from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional

from models.classes import ClassSystem

Batch = tuple[Tensor, Tensor]  # inputs (B, ...), class indices (B,)


class Classifier(ClassSystem):
    """Trains a network with cross entropy.

    Args:
        network: maps inputs (B, ...) to logits (B, num_classes).
    """

    # Of few samples one decides which accuracy is best; of the Brier score none does: the squared
    # distance of the probabilities from the truth, 0 to 2 (Brier 1950).
    monitor = "val/brier"

    def __init__(self, network: nn.Module, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        if type(self).loss is Classifier.loss:
            self.try_class_loss()

    def loss(self, batch: Batch) -> Tensor:
        inputs, labels = batch
        logits = self(inputs).float()
        if labels.is_floating_point():
            raise MisconfigurationException("The labels are floats: give class indices (int64)")
        self.check_logits(logits)
        if not self.training:
            self.add("acc", (logits.argmax(dim=1) == labels).sum(), len(labels))
            distance = logits.softmax(dim=1) - functional.one_hot(labels, logits.shape[1])
            self.add("brier", distance.square().sum(), len(labels))
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
