"""Find the learning rate or the batch size before a fit, with Lightning's finders."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.parsing import lightning_setattr

from engine.errors import UserError
from engine.files import may_be_missing
from engine.records import filled

SKIP = 10  # first steps, whose mean loss is still noise


def conclude(trainer: Trainer, key: str, value: float, apply: bool) -> None:
    """Goes on with what was found, or says it and ends the fit."""
    if trainer.is_global_zero:
        print(f"{'Going on with' if apply else 'Found:'} --{key} {value}")
    if not apply:
        trainer.num_sanity_val_steps = trainer.limit_train_batches = 0
        return
    section, name = key.split(".")
    lightning_setattr(trainer.lightning_module, name, value)
    config = Path(trainer.default_root_dir, "config.yaml")
    if trainer.is_global_zero and config.exists():
        text = filled(config.read_text(encoding="utf-8"), {f"{section}.init_args.{name}": value})
        config.write_text(text, encoding="utf-8")
    # Schedulers have taken over the old learning rate and the old number of steps.
    trainer.strategy.setup_optimizers(trainer)


class FindLearningRate(LearningRateFinder):
    """Raises the learning rate step by step, and finds the one at which the loss falls fastest.
    Draws the curve into ``lr.png`` in the run folder.

    Args:
        apply: fit with the rate; otherwise stop there.
        kwargs: of Lightning's finder.
    """

    def __init__(self, apply: bool = False, **kwargs: Any) -> None:
        super().__init__(update_attr=False, **kwargs)
        self.apply = apply

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path:  # a fit that continues has its rate
            return
        if len(trainer.optimizers) != 1:
            raise UserError(
                f"The learning-rate finder serves one optimizer, and {type(pl_module).__name__} "
                f"has {len(trainer.optimizers)}; search model.lr with sweep.py"
            )
        loop = trainer.fit_loop
        max_epochs, loop.max_epochs = loop.max_epochs, -1  # a short fit has too few steps
        self.lr_find(trainer, pl_module)
        loop.max_epochs = max_epochs
        finder: Any = self.optimal_lr
        if finder is None:  # in a fast_dev_run
            return
        rates, losses = (torch.tensor(finder.results[name]) for name in ("lr", "loss"))
        if len(losses) < SKIP + 2:
            raise UserError(f"{len(losses)} steps are too few to find a learning rate")
        [slope] = torch.gradient(losses, spacing=(rates.log(),))
        found = SKIP + int(slope[SKIP:].nan_to_num(torch.inf).argmin())
        path = Path(trainer.default_root_dir, "lr.png")
        if trainer.is_global_zero:
            figure = finder.plot()
            figure.axes[0].axvline(rates[found])
            with may_be_missing(path):
                figure.savefig(path)
                print(f"Learning rates and losses: {path}")
        conclude(trainer, "model.lr", float(f"{rates[found]:.2g}"), self.apply)


class FindBatchSize(BatchSizeFinder):
    """Doubles the batch size until the memory or the data is used up.

    Args:
        apply: fit with the size; otherwise stop there.
        init_val: the first size.
        max_val: the largest.
        steps_per_trial: steps with each size.
    """

    def __init__(
        self, apply: bool = False, init_val: int = 16, max_val: int = 8192, steps_per_trial: int = 3
    ) -> None:
        # Lightning's limit is a size that it does not try.
        super().__init__("power", steps_per_trial, init_val, max_val=max_val + 1)
        self.apply = apply
        self.largest = max_val
        self.found = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.found:  # by a fit that this one continues
            lightning_setattr(pl_module, "batch_size", self.found)
            return
        super().on_fit_start(trainer, pl_module)
        loader: Any = trainer.train_dataloader
        if self.optimal_batch_size and loader:  # not in a fast_dev_run
            size = self.optimal_batch_size
            self.found = min(size // 2 if size > self.largest else size, len(loader.dataset))
            conclude(trainer, "data.batch_size", self.found, self.apply)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is searched in evaluations."""

    on_validation_start = on_predict_start = on_test_start

    def state_dict(self) -> dict[str, int]:
        return {"batch_size": self.found}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.found = state_dict["batch_size"]
