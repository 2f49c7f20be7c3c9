"""Forecasts by how far they look ahead: a table of their errors, and a picture."""

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from engine.files import may_be_missing, write_rows

COLUMNS = ("lead", "mae", "mape", "mase")


def write_errors(path: Path, sums: Tensor) -> None:
    """Writes the mean errors of each step ahead.

    Args:
        path: of the CSV file.
        sums: of absolute, relative and scaled errors, each before its count (6, horizon).
    """
    means = (sums[::2] / sums[1::2]).T.tolist()
    with may_be_missing(path):
        write_rows(path, [COLUMNS, *([lead, *row] for lead, row in enumerate(means, start=1))])


def draw_forecasts(
    history: Tensor, forecast: Tensor, future: Tensor | None, most: int = 9
) -> Image.Image:
    """Draws the first series of windows (B, steps, series), each with a past of four horizons."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    horizon = forecast.shape[1]
    lines = {"past": (history[:, -4 * horizon :], "grey")}
    if future is not None:
        lines["what came"] = future, "black"
    lines["forecast"] = forecast, "tab:orange"
    for i in range(min(most, len(forecast))):
        axes = figure.add_subplot(3, 3, i + 1)
        for label, (windows, color) in lines.items():
            values = windows[i, :, 0].detach().float().cpu()
            first = 1 - len(values) if label == "past" else 1
            axes.plot(range(first, first + len(values)), values, color=color, label=label)
    figure.axes[0].legend()
    file = BytesIO()
    figure.savefig(file)
    return Image.open(file).convert("RGB")
