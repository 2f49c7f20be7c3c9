"""What a fit takes from the size of its data, where the configuration leaves it open."""

from math import ceil
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from engine.last_checkpoint import LastCheckpoint
from engine.splits import is_classes

MOST_SAVES = 50
FEW = 100  # validation samples: of fewer, a share is known to no better than ± 5 points


class Recipe(Callback):
    """Chooses the length of a fit if ``trainer.max_epochs`` is null, and says in a line what was
    left to the size of the data.

    Args:
        epochs: at least so many.
        steps: of the optimizer, at least so many: an epoch of little data has few.
    """

    def __init__(self, epochs: int = 30, steps: int = 600) -> None:
        self.epochs, self.steps = epochs, steps
        self.chosen: dict[str, Any] = {}  # by their keys in the configuration

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data: Any = trainer.datamodule
        splits = getattr(data, "splits", {})
        if stage != "fit" or trainer.fast_dev_run or not hasattr(splits.get("train"), "__len__"):
            return
        count, size = len(splits["train"]), data.batch_size
        steps = max(1, ceil(count / trainer.world_size) // size)
        limit = trainer.limit_train_batches  # a number or a share
        steps = min(steps, limit) if isinstance(limit, int) else ceil(steps * limit)
        if (batches := trainer.accumulate_grad_batches) > steps:
            more = f"more than an epoch has ({steps}): a step is taken at the end of each"
            rank_zero_info(f"trainer.accumulate_grad_batches is {batches}, {more}")
        steps = ceil(steps / batches)  # those of the optimizer
        each = f"{steps} step" + "s" * (steps > 1)
        length = f"{each} an epoch"
        if self.steps:
            length = f"{self.choose_length(trainer, steps)} epochs of {each}"
        self.chosen |= {f"data.init_args.{k}": v for k, v in getattr(data, "chosen", {}).items()}
        measured = len(splits["val"])
        samples = f"{measured} validation sample" + "s" * (measured != 1)
        if self.chosen:
            rank_zero_info(
                f"Recipe for {count} training samples: {length}, batches of {size}, {samples}"
            )
        if measured < FEW and is_classes(getattr(splits["val"].dataset, "labels", None)):
            own = "val" in getattr(getattr(data, "dealing", None), "given", ())  # the data set's
            more = "; --data.val_fraction keeps more of them" * (not own)
            points = f"± {50 / measured**0.5:.0f} points"
            rank_zero_info(f"{samples}: an accuracy is known to {points}{more}")

    def choose_length(self, trainer: Trainer, steps: int) -> int:
        """The number of epochs of so many steps. Of short ones a few are validated at a time."""
        epochs = max(self.epochs, ceil(self.steps / steps))
        every = trainer.check_val_every_n_epoch
        if every == 1 and trainer.val_check_interval == 1.0:
            every = ceil(epochs / MOST_SAVES)
            epochs = ceil(epochs / every) * every
            trainer.check_val_every_n_epoch = every
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, LastCheckpoint) and callback.every_n_epochs == 1:
                    callback.every_n_epochs = self.chosen["last_checkpoint.every_n_epochs"] = every
        trainer.fit_loop.max_epochs = epochs
        trainer.log_every_n_steps = min(trainer.log_every_n_steps, steps)  # each epoch
        for name in ("max_epochs", "check_val_every_n_epoch", "log_every_n_steps"):
            self.chosen[f"trainer.{name}"] = getattr(trainer, name)
        return epochs


def await_data(trainer: Namespace, recipe: Namespace) -> None:
    """Gives the Trainer some length where none is set, until the size of the data is known."""
    if trainer.max_epochs is None and trainer.max_steps == -1:
        trainer.max_epochs = recipe.epochs
    else:
        recipe.steps = 0
