"""Windows of a series, gathered a batch at a time, and how a network sees them."""

import torch
from torch import Tensor, nn

from engine.samples import TensorSamples, row_numbers

Batch = dict[str, Tensor]


class Windows(TensorSamples):
    """Every window of a series: ``past`` (B, window, series), ``covariates`` (B, window + horizon,
    covariates), if there are any, and ``future`` (B, horizon, series), unless it is to be forecast.

    Args:
        steps: values and covariates of each step (T, series + covariates).
        num_series: how many of them are values.
        window: steps of the past.
        horizon: steps of the future.
        with_future: whether the values of the future are given.
    """

    samples: Tensor

    def __init__(
        self, steps: Tensor, num_series: int, window: int, horizon: int, with_future: bool = True
    ) -> None:
        super().__init__(steps)
        self.num_series, self.window, self.horizon = num_series, window, horizon
        self.with_future = with_future

    def __len__(self) -> int:
        return max(len(self.samples) - self.window - self.horizon + 1, 0)

    def __getitem__(self, index: int) -> Batch:
        return {name: tensor[0] for name, tensor in self.__getitems__([index]).items()}

    def __getitems__(self, indices: list[int] | Tensor) -> Batch:
        device = self.samples.device
        steps = torch.arange(self.window + self.horizon, device=device)
        rows = row_numbers(indices, device)[:, None] + steps
        found = self.samples.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        values, covariates = found.tensor_split([self.num_series], dim=2)
        batch = {"past": values[:, : self.window]}
        if covariates.shape[2]:
            batch["covariates"] = covariates
        return batch | ({"future": values[:, self.window :]} if self.with_future else {})


class FromSeason(nn.Module):
    """Prepares windows: a forecast is the course of a season before, moved to the last value, plus
    what the network gives times the mean change from season to season. The network's errors are in
    units of that change.

    The network sees ``past`` (B, window - season, 2 x series + covariates): each value,
    standardised, its change within a season, and the covariates; and ``known`` (B, horizon, series
    + covariates): of each coming step the value a season before and the covariates. What it gives
    is in units of ``unit`` (B, 1, series) and counted from ``base`` (B, horizon, series).
    ``history`` (B, window, series) and ``future`` are the values themselves.

    Args:
        steps: of the training part (T, series + covariates), of which the statistics are.
        num_series: how many of them are values.
        season: steps, fewer than a window has; 1 compares with the step before.
        horizon: steps of the future.
    """

    mean: Tensor
    std: Tensor
    unit: Tensor

    def __init__(self, steps: Tensor, num_series: int, season: int, horizon: int) -> None:
        super().__init__()
        self.num_series, self.season, self.horizon = num_series, season, horizon
        std, mean = torch.std_mean(steps, dim=0)
        std = torch.where(std > 0, std, 1.0)
        change = self.change(steps)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        # A series that repeats itself exactly is measured by its deviation.
        self.register_buffer("unit", torch.where(change > 0, change, std[:num_series]))

    def change(self, steps: Tensor) -> Tensor:
        """(T, series + covariates) -> the mean change from season to season (series,)."""
        values = steps[:, : self.num_series]
        return (values[self.season :] - values[: -self.season]).abs().mean(dim=0)

    def forward(self, batch: Batch) -> Batch:
        history, season = batch["past"], self.season
        window = history.shape[1]
        mean, std = self.mean[: self.num_series], self.std[: self.num_series]
        # The steps of the past that are a season, or several, before those of the horizon.
        before = window - season + torch.arange(self.horizon, device=history.device) % season
        pattern = history[:, before]
        base = pattern
        if season > 1:
            base = pattern + history[:, -1:] - history[:, window - season - 1 : window - season]
        level = (history[:, season:] - mean) / std
        change = (history[:, season:] - history[:, :-season]) / self.unit
        past, known = [level, change], [(pattern - mean) / std]
        if "covariates" in batch:
            mean, std = self.mean[self.num_series :], self.std[self.num_series :]
            covariates = (batch["covariates"] - mean) / std
            past.append(covariates[:, season:window])
            known.append(covariates[:, window:])
        return batch | {
            "past": torch.cat(past, dim=2),
            "known": torch.cat(known, dim=2),
            "base": base,
            "unit": self.unit.expand(base.shape[0], 1, -1),
            "history": history,
        }
