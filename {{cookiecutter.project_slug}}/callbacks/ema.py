"""Averages the weights as they are trained."""

from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Validates, tests and saves an exponential moving average of the weights.

    After n steps the decay is ``(1 + n) / (10 + n)``, until it reaches ``decay`` (Abadi et al. 2016):
    with ``decay`` from the start, the random weights of the first step would rule a short fit.

    Args:
        decay: share of the average that a step keeps.
        device: where the average lies; by default that of the system.
        use_buffers: average the statistics of batch norm as well.
    """

    def __init__(
        self,
        decay: float = 0.99,
        device: torch.device | str | None = None,
        use_buffers: bool = True,
    ) -> None:
        super().__init__(device, use_buffers, multi_avg_fn=self.average)
        self.decay = decay

    def average(self, averages: Any, weights: Any, steps: Tensor | int) -> None:
        n = int(steps)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averages, weights, n)
