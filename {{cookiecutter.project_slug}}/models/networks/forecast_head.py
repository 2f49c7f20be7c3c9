"""From what a network has seen of the past to a number for each coming step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ForecastHead(nn.Module):
    """Gives each coming step features of its own, beside what is known of it, and then the same
    hidden layer. It starts from zero, the forecast of no change.

    Args:
        dim: number of features of the past.
        known_shape: steps that are forecast, and numbers that are known of each.
        num_series: numbers that are forecast of each step.
        width: features of a step.
    """

    def __init__(
        self, dim: int, known_shape: Sequence[int], num_series: int, width: int = 16
    ) -> None:
        super().__init__()
        self.horizon, num_known = known_shape
        self.to_steps = nn.Linear(dim, self.horizon * width)
        self.hidden = nn.Linear(width + num_known, 4 * width)
        self.to_series = nn.Linear(4 * width, num_series)
        nn.init.zeros_(self.to_series.weight)
        nn.init.zeros_(self.to_series.bias)

    def forward(self, features: Tensor, known: Tensor) -> Tensor:
        """(B, D) and (B, horizon, known) -> (B, horizon, series)."""
        steps = self.to_steps(features).unflatten(1, (self.horizon, -1))
        return self.to_series(F.relu(self.hidden(torch.cat([steps, known], dim=2))))
