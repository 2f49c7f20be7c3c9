"""The head of the forecasters: from a window and a network's features of it to the coming steps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARE = 0.1  # of the network's part, so that it grows more slowly than the linear part


def by_series(numbers: Tensor, each: int, num_series: int) -> Tensor:
    """(B, T, each x series + shared) -> (B, series, T, each + shared)."""
    own = numbers[:, :, : each * num_series].unflatten(2, (each, num_series)).permute(0, 3, 1, 2)
    shared = numbers[:, None, :, each * num_series :].expand(-1, num_series, -1, -1)
    return torch.cat([own, shared], dim=3)


class ForecastHead(nn.Module):
    """A linear forecast of each series from its own window, hard to beat where data is little (Zeng
    et al. 2023), plus what the network adds: features for each coming step, beside what is known of
    it, and then the same hidden layer for all. Both start from zero, the forecast of no change.

    Args:
        dim: number of features that the network gives.
        input_shape: steps of the past that are seen, and numbers of each: values and their changes
            (`num_series` each), then covariates.
        known_shape: steps that are forecast, and numbers that are known of each: values of the
            season before (`num_series`), then covariates.
        num_series: numbers that are forecast of each step.
        dropout: probability of dropping a feature of the network.
        width: features of a coming step.
    """

    def __init__(
        self,
        dim: int,
        input_shape: Sequence[int],
        known_shape: Sequence[int],
        num_series: int,
        dropout: float = 0.2,
        width: int = 16,
    ) -> None:
        super().__init__()
        (steps, _), (self.horizon, num_known) = input_shape, known_shape
        self.num_series = num_series
        covariates = num_known - num_series
        numbers = steps * (2 + covariates) + self.horizon * (1 + covariates)
        self.linear = nn.Linear(numbers, self.horizon)
        self.dropout = nn.Dropout(dropout)
        self.to_steps = nn.Linear(dim, self.horizon * width)
        self.hidden = nn.Linear(width + num_known, 4 * width)
        self.to_series = nn.Linear(4 * width, num_series)
        for last in (self.linear, self.to_series):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, past: Tensor, known: Tensor) -> Tensor:
        """(B, D), (B, steps, inputs) and (B, horizon, known) -> (B, horizon, series)."""
        steps = self.to_steps(self.dropout(features)).unflatten(1, (self.horizon, -1))
        added = self.to_series(F.relu(self.hidden(torch.cat([steps, known], dim=2))))
        own = by_series(past, 2, self.num_series), by_series(known, 1, self.num_series)
        window = torch.cat([part.flatten(2) for part in own], dim=2)
        return self.linear(window).transpose(1, 2) + SHARE * added
