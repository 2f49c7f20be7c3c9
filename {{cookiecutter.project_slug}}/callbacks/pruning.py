"""Sets small weights to zero."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning


class Pruning(ModelPruning):
    """Sets the smallest weights to zero, some after each epoch, until they are a given share.

    Lightning's own callback prunes its ``amount`` of what is left again in each epoch, and starts
    anew when a fit continues.

    Args:
        final_share: share of all weights that are zero in the end.
        epochs: how many epochs it takes.
    """

    def __init__(self, final_share: float = 0.5, epochs: int = 10) -> None:
        self.final_share = final_share
        self.epochs = epochs
        super().__init__(
            "l1_unstructured",
            parameter_names=["weight"],
            amount=self.share_after,
            use_lottery_ticket_hypothesis=False,
        )

    def share_after(self, epoch: int) -> float:
        """The share of the weights still left that is pruned after this epoch."""
        return 1 - (1 - self.final_share) ** (1 / self.epochs) if epoch < self.epochs else 0.0

    def filter_parameters_to_prune(self, parameters_to_prune: Sequence = ()) -> Any:
        self.pruned = list(parameters_to_prune)  # modules, each with the name of its weight
        return parameters_to_prune

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint has zeros but no masks.
        zeros = sum(int((getattr(m, name) == 0).sum()) for m, name in self.pruned)
        if trainer.ckpt_path and zeros:
            self.apply_pruning(zeros)
