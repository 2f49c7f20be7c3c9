"""Forecasts with any network that maps a window of the past to the steps that follow."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from engine import losses
from models.lead_times import draw_forecasts, write_errors
from models.system import System

Batch = dict[str, Tensor]  # what data/series_windows.py prepares


class Forecaster(System):
    """Trains a network on the mean absolute error, each series in units of its mean change from
    season to season, so that the loss is the mean absolute scaled error (MASE, Hyndman & Koehler
    2006): below 1, a forecast is better than the value a season before.

    Evaluations measure ``mae`` in the data's unit, ``mape`` in percent (of values that are not 0)
    and ``mase``; a test writes them by lead time into ``lead_times.csv``.

    Args:
        network: maps past (B, steps, inputs) and what is known of the future (B, horizon, known) to
            (B, horizon, series), in units of the change.
        loss: mean loss of outputs and targets (B, horizon, series), by default the absolute error.
        value_columns: names of the series; the data module provides them.
    """

    monitor = "val/mase"

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module | None = None,
        value_columns: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion: Any = loss or nn.L1Loss()
        losses.try_torchs(self.criterion, 0)
        self.names = {"forecast": value_columns or []}
        self.by_lead: Any = 0  # in a test: sums of three errors, each before its count (6, horizon)

    def loss(self, batch: Batch) -> Tensor:
        output = self(batch["past"], batch["known"])
        target = (batch["future"] - batch["base"]) / batch["unit"]
        if not self.training:
            self.count_errors((output - target).abs(), batch)
            self.update_metrics(output, target)
        return self.criterion(output, target)

    def count_errors(self, scaled: Tensor, batch: Batch) -> None:
        error, size = scaled * batch["unit"], batch["future"].abs()
        percent, ones = torch.where(size > 0, 100 * error / size, 0), torch.ones_like(error)
        pairs = [error, ones, percent, (size > 0).float(), scaled, ones]  # error, its count
        sums = torch.stack(pairs).sum(dim=(1, 3))  # over batch and series
        self.by_lead = self.by_lead + sums
        for i, name in enumerate(("mae", "mape", "mase")):
            total, count = sums[2 * i : 2 * i + 2].sum(dim=1)
            self.add_to_mean(name, total, count)

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.by_lead = 0

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        sums = self.trainer.strategy.reduce(self.by_lead, reduce_op="sum")
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            write_errors(Path(self.trainer.default_root_dir, "lead_times.csv"), sums)

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Forecast (B, horizon, series) in the data's unit."""
        output = self(batch["past"], batch["known"])
        return {"forecast": batch["base"] + batch["unit"] * output}

    def pictures(self, batch: Batch) -> Image.Image:
        """Forecasts of the first series, with their past and their true future."""
        forecast = self.predict_step(batch)["forecast"]
        return draw_forecasts(batch["history"], forecast, batch.get("future"))
