"""Ends a fit whose weights have become nan or infinite, before a checkpoint of them is written."""

from itertools import chain
from math import isfinite
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from engine.compat import step_logged
from engine.errors import Diverged, UserError

ADVICE = (
    "Checkpoints written before are whole. Start again with a smaller --model.lr, with "
    "--trainer.gradient_clip_val 1, or in --trainer.precision 32-true; --config "
    "configs/debug/anomaly.yaml shows the operation that fails first."
)
SPOILT = f"The fit has diverged: weights are nan or infinite. {ADVICE}"


class Divergence(Callback):
    """Reads the losses from the device once in the logging interval, before a validation and before
    a save. A single loss that is no number may be a step that mixed precision leaves out."""

    def __init__(self) -> None:
        self.steps: list[int] = []  # since the last look
        self.losses: list[Tensor] = []
        self.last: tuple[int, float] | None = None  # step and loss, of those that are numbers
        self.doubtful = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps, self.losses, self.last, self.doubtful = [], [], None, False
        for group in chain.from_iterable(one.param_groups for one in trainer.optimizers):
            eps = group.get("eps")  # Adafactor has two, of which one may be None
            halves = any(weight.dtype == torch.float16 for weight in group["params"])
            if halves and isinstance(eps, float) and eps and not torch.tensor(eps).half():
                raise UserError(
                    f"The optimizer's eps of {eps:.0e} is 0 in float16, and it divides by that: "
                    "give --model.optimizer.eps 1e-4, or --trainer.precision bf16-true"
                )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self.steps.append(step_logged(trainer))
            self.losses.append(loss.detach() if loss.ndim == 0 else loss.detach().mean())
        if len(self.losses) >= max(trainer.log_every_n_steps, 1) or trainer.is_last_batch:
            self.look(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.look(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises Diverged if the score that says which epoch is best is no number."""
        name = getattr(trainer.checkpoint_callback, "monitor", None)
        score = float(trainer.callback_metrics.get(name or "", 0))
        if trainer.state.fn == "fit" and not (trainer.sanity_checking or isfinite(score)):
            found = f"{name} is {score} in epoch {trainer.current_epoch}"
            if not all_finite(pl_module) or any(b.isnan().any() for b in pl_module.buffers()):
                raise Diverged(f"{found}, as weights or statistics of batch norm are. {ADVICE}")
            raise Diverged(
                f"{found}, though the weights are numbers: look at the validation data, and at "
                "what the metric divides by"
            )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.look(trainer, pl_module)
        # The last step may have spoilt them, after its loss.
        if trainer.strategy.reduce_boolean_decision(not all_finite(pl_module), all=False):
            raise Diverged(SPOILT)

    def look(self, trainer: Trainer, system: LightningModule) -> None:
        """Raises Diverged if the newest loss and the weights are no numbers; in manual
        optimization, whose steps may give no loss, the weights alone."""
        if not self.losses:
            if not (system.automatic_optimization or all_finite(system)):
                raise Diverged(SPOILT)
            return
        losses, steps = torch.stack(self.losses).tolist(), self.steps
        self.losses, self.steps = [], []
        for step, loss in zip(steps, losses, strict=True):
            if isfinite(loss):
                self.last = step, loss
        doubtful = not isfinite(losses[-1])
        diverged = doubtful and (self.doubtful or not all_finite(system))
        self.doubtful = doubtful
        if trainer.strategy.reduce_boolean_decision(diverged, all=False):
            raise Diverged(self.message(losses[-1], steps[0]))

    def message(self, loss: float, first: int) -> str:
        since = f", and was so at step {first} already: look for such a number in the data"
        if self.last:
            since = f" since step {self.last[0] + 1}, and was {self.last[1]:.4g} before"
        return f"The fit has diverged: the loss is {loss}{since}. {ADVICE}"


def all_finite(system: LightningModule) -> bool:
    """Whether all weights are numbers, as far as this process has them."""
    own = (getattr(p, "to_local", lambda p=p: p)() for p in system.parameters())
    return all(bool(p.detach().isfinite().all()) for p in own)
