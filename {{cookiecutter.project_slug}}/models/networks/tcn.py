"""Temporal convolutional network (Bai, Kolter & Koltun 2018)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.forecast_head import ForecastHead


class Block(nn.Module):
    """Two convolutions that look `dilation` steps apart into the past, and a residual."""

    def __init__(self, dim_in: int, dim: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation, 0  # before the first step: none sees its future
        self.first = nn.Conv1d(dim_in, dim, kernel, dilation=dilation)
        self.second = nn.Conv1d(dim, dim, kernel, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.residual = nn.Identity() if dim_in == dim else nn.Conv1d(dim_in, dim, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, D_in, T) -> (B, D, T)
        hidden = self.dropout(F.relu(self.first(F.pad(x, self.padding))))
        hidden = self.dropout(F.relu(self.second(F.pad(hidden, self.padding))))
        return F.relu(self.residual(x) + hidden)


class TCN(nn.Module):
    """Causal convolutions, each block twice as far apart as the one before, until the last step
    sees the whole window; then a head.

    Args:
        input_shape: steps of the past that are seen, and numbers of each.
        known_shape: steps that are forecast, and numbers that are known of each.
        num_series: numbers that are forecast of each step.
        width: channels of the convolutions.
        kernel: steps that a convolution sees.
        dropout: probability of dropping a number after a convolution and before the head.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        known_shape: Sequence[int],
        num_series: int,
        width: int = 32,
        kernel: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        steps, dim = input_shape
        self.blocks = nn.Sequential()
        dilation, seen = 1, 1
        while seen < steps or not self.blocks:
            self.blocks.append(Block(dim, width, kernel, dilation, dropout))
            seen += 2 * (kernel - 1) * dilation
            dim, dilation = width, 2 * dilation
        self.head = ForecastHead(width, input_shape, known_shape, num_series, dropout)

    def forward(self, past: Tensor, known: Tensor) -> Tensor:
        """(B, steps, inputs) and (B, horizon, known) floats -> (B, horizon, series)."""
        return self.head(self.blocks(past.transpose(1, 2))[:, :, -1], past, known)
