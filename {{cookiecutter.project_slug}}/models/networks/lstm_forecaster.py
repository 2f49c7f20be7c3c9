"""Long short-term memory (Hochreiter & Schmidhuber 1997) over a window."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.networks.forecast_head import ForecastHead


class LSTMForecaster(nn.Module):
    """Reads the window step by step; a head forecasts from the state after the last.

    Args:
        input_shape: steps of the past that are seen, and numbers of each.
        known_shape: steps that are forecast, and numbers that are known of each.
        num_series: numbers that are forecast of each step.
        width: of the state.
        depth: number of layers.
        dropout: probability of dropping a number of the last state.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        known_shape: Sequence[int],
        num_series: int,
        width: int = 64,
        depth: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.backbone = nn.LSTM(input_shape[1], width, depth, batch_first=True)
        self.head = ForecastHead(width, input_shape, known_shape, num_series, dropout)

    def forward(self, past: Tensor, known: Tensor) -> Tensor:
        """(B, steps, inputs) and (B, horizon, known) floats -> (B, horizon, series)."""
        states, _ = self.backbone(past)
        return self.head(states[:, -1], past, known)
