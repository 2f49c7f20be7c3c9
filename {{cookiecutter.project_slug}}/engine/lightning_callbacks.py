"""Lightning's callbacks, mended: what they lack for a fit that goes on after a stop, or at all."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer, callbacks
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from engine.errors import UserError


class EMA(callbacks.WeightAveraging):
    """Validates, tests and saves an exponential moving average of the weights.

    After n steps the decay is ``(1 + n) / (10 + n)``, until it reaches ``decay`` (Abadi et al.
    2016): with ``decay`` from the start, the first, random weights would rule a short fit.

    Args:
        decay: share of the average that a step keeps.
        kwargs: of Lightning's WeightAveraging.
    """

    def __init__(self, decay: float = 0.99, **kwargs: Any) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"decay is {decay}: it must be 0 or more, and less than 1")
        super().__init__(**kwargs, multi_avg_fn=self.average)
        self.decay = decay

    def average(self, averages: Any, weights: Any, steps: Tensor | int) -> None:
        n = int(steps)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averages, weights, n)


class SWA(callbacks.StochasticWeightAveraging):
    """Averages the weights of the last epochs, then runs Lightning's extra epoch whatever the
    network: there the averaged weights get their statistics of batch norm, and are saved."""

    began: int | None = None  # the epoch since which the fit of a checkpoint averages

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: LightningModule) -> bool:
        return True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        averaged = state_dict["n_averaged"]
        self.began = state_dict["latest_update_epoch"] + 1 - averaged if averaged else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.began not in (None, self.swa_start):
            raise UserError(
                f"{trainer.ckpt_path} averages weights since epoch {self.began}, and a fit of this "
                f"length would since epoch {self.swa_start}: give swa_epoch_start as the number "
                f"{self.began + 1}, or start a fit with --model.init_from {trainer.ckpt_path}"
            )


class Pruning(callbacks.ModelPruning):
    """Sets the smallest weights to zero, some after each epoch, until they are a given share.
    Lightning's own starts anew when a fit continues.

    Args:
        final_share: share of all weights that are zero in the end.
        epochs: how many epochs it takes.
    """

    def __init__(self, final_share: float = 0.5, epochs: int = 10) -> None:
        if not 0 <= final_share < 1 or epochs < 1:
            text = "it must be 0 or more, and less than 1, in at least 1 epoch"
            raise UserError(f"final_share is {final_share} in {epochs} epochs: {text}")
        self.final_share, self.epochs = final_share, epochs
        super().__init__(
            "l1_unstructured",
            parameter_names=["weight"],
            amount=self.share_after,
            use_lottery_ticket_hypothesis=False,
        )

    def share_after(self, epoch: int) -> float:
        """The share of the weights still left that is pruned after this epoch."""
        return 1 - (1 - self.final_share) ** (1 / self.epochs) if epoch < self.epochs else 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        kinds = callbacks.WeightAveraging | callbacks.StochasticWeightAveraging
        if stage == "fit" and any(isinstance(one, kinds) for one in trainer.callbacks):
            raise UserError("Pruning keeps weights at zero, which no average (EMA, SWA) does")
        super().setup(trainer, pl_module, stage)

    def filter_parameters_to_prune(self, parameters_to_prune: Sequence = ()) -> Any:
        self.pruned = list(parameters_to_prune)  # modules, each with the name of its weight
        return parameters_to_prune

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A checkpoint has the zeros, but not which weights stay so.
        zeros = sum(int((getattr(m, name) == 0).sum()) for m, name in self.pruned)
        if trainer.ckpt_path and zeros:
            self.apply_pruning(zeros)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        # Lightning prunes after the validation: weights would be saved with the score of others.
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """It is done."""
