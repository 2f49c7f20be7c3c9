"""What a system does with its schedulers: their length, and those that wait for a plateau."""

import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from math import ceil, inf
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from engine.compat import epochs_over

LENGTHS = ("total_steps", "T_max")  # what schedules call the number of their steps


def configure(system: Any, optimizer: Optimizer) -> dict[str, Any]:
    """What `configure_optimizers` says of an optimizer and its scheduler."""
    scheduler, name, length = make_scheduler(system.scheduler, optimizer)
    if name:
        system.lengths[scheduler] = name, length
    # Those that get the length of the fit, and those that torch says to step after each batch.
    by_step = name and length is None or isinstance(scheduler, OneCycleLR | CyclicLR)
    interval = getattr(scheduler, "interval", "step" if by_step else "epoch")
    config: Any = {"scheduler": scheduler, "interval": system.scheduler_interval or interval}
    if system.automatic_optimization:
        config["monitor"] = system.scheduler_monitor
    return {"optimizer": optimizer, "lr_scheduler": config}


def make_scheduler(
    make: Callable[..., LRScheduler], optimizer: Optimizer
) -> tuple[Any, str, float | None]:
    """The scheduler, what it calls its length, and the length, unless that was left out."""
    try:
        scheduler = make(optimizer)
    except (TypeError, ValueError) as error:
        for name in LENGTHS:
            with suppress(TypeError):
                return make(optimizer, **{name: 1000}), name, None  # until the fit's is known
        if isinstance(error, TypeError):  # as those that take other schedulers
            text = f"The scheduler cannot be made of an optimizer alone ({error})"
            raise MisconfigurationException(f"{text}: name a class of your own") from error
        raise
    name = next((name for name in LENGTHS if hasattr(scheduler, name)), "")
    length = getattr(scheduler, name, None)
    return scheduler, name, None if length == -1 else length


def set_lengths(system: Any, lengths: dict[LRScheduler, tuple[str, float | None]]) -> None:
    """Gives the schedulers the length that was configured (a checkpoint may have had another), or
    that of the fit, unless it goes on after the end of a schedule that ends there."""
    for config in system.trainer.lr_scheduler_configs:
        name, configured = lengths.get(config.scheduler, ("", None))
        fit = fit_length(system.trainer, config.interval, len(system.parts)) if name else 0
        if name and configured is None:
            config.scheduler = resize(config.scheduler, system.scheduler, name, fit)
        elif configured is not None and getattr(config.scheduler, name) != configured:
            config.scheduler = resize(config.scheduler, system.scheduler, name, configured)
        if isinstance(config.scheduler, OneCycleLR) and configured and configured < fit < inf:
            raise MisconfigurationException(
                f"The scheduler's total_steps is {configured}, but this fit has {fit} "
                f"{config.interval}s, and OneCycleLR can do no more: give that number, or leave it "
                "out in a new fit"
            )


def fit_length(trainer: Trainer, interval: str, num_optimizers: int) -> float:
    """Steps or epochs of the fit; not positive, or infinite, if that is not known."""
    if interval == "epoch":
        return trainer.max_epochs or -1
    steps = trainer.estimated_stepping_batches
    if trainer.global_step and 0 < steps < inf and trainer.max_epochs != -1:
        # It goes on, perhaps with epochs of another length: those that are left count.
        progress = trainer.fit_loop.epoch_loop.batch_progress
        left = trainer.max_epochs - epochs_over(trainer)
        each, together = trainer.num_training_batches, trainer.accumulate_grad_batches
        steps = trainer.global_step // num_optimizers + left * ceil(each / together)
        steps -= 0 if progress.is_last_batch else progress.current.ready // together
    if trainer.max_steps > 0:  # counts those of all optimizers
        steps = min(steps, trainer.max_steps // num_optimizers)
    return steps


def resize(scheduler: Any, make: Any, name: str, length: float) -> LRScheduler:
    """The same schedule with this length, after as many steps: walked there from the initial rate,
    as some schedules know their rate by the one before it alone."""
    if not 0 < length < inf:
        if name == "T_max" or getattr(scheduler, name):
            raise MisconfigurationException(f"The length of this fit is not known: give {name}")
        rank_zero_info(
            f"The length of this fit is not known, so {type(scheduler).__name__} does not lower "
            f"the learning rate at its end: give trainer.max_steps or the scheduler's {name}"
        )
        return scheduler
    for group in scheduler.optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    resized = make(scheduler.optimizer, **{name: length})
    with warnings.catch_warnings():  # the steps of the optimizer were those of the fit before
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        for _ in range(scheduler.last_epoch):
            resized.step()
    return resized


def step_on_plateau(system: Any) -> None:
    """Steps the schedulers that look at a metric after each epoch with a validation."""
    trainer: Trainer = system.trainer
    metrics, known = trainer.callback_metrics, ", ".join(trainer.callback_metrics)
    validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    for config in trainer.lr_scheduler_configs:
        plateau = isinstance(config.scheduler, ReduceLROnPlateau) and config.interval == "epoch"
        if not plateau or config.frequency not in (1, sys.maxsize):
            continue
        config.frequency = sys.maxsize  # Lightning passes over it
        monitor = config.monitor or system.scheduler_monitor
        if validated and monitor in metrics:
            config.scheduler.step(metrics[monitor])
        elif validated and ("val/" in known or not trainer.enable_validation):
            raise MisconfigurationException(
                f"scheduler_monitor is {monitor}, which is not logged. What is: {known}"
            )
