"""Learning-rate schedule: linear warm-up, then a cosine that ends with the fit."""

from math import cos, pi
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Raises the learning rate for ``warmup_steps`` steps, then lowers it to zero along a cosine
    (Loshchilov & Hutter 2017).

    Args:
        optimizer: its learning rate is the peak.
        warmup_steps: optimizer steps until the peak.
        total_steps: optimizer steps until zero; the system fills in the length of the fit.
    """

    interval = "step"

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 20, total_steps: int | None = None
    ) -> None:
        if min(warmup_steps, total_steps or 0) < 0:
            raise ValueError("warmup_steps and total_steps must be 0 or more")
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        step = self.last_epoch
        factor = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if self.total_steps is not None and step > self.warmup_steps:
            decay = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
            factor = 0.5 * (1 + cos(pi * min(decay, 1.0)))
        return [factor * lr for lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        # A continued fit may be longer: its own length counts.
        return {k: v for k, v in super().state_dict().items() if k != "total_steps"}
