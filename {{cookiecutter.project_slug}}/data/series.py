"""What time series share: windows, splits by time, and forecasts of what follows a file."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.utils.data import Subset

from data.base import Data
from data.series_reading import read_series
from data.series_types import Columns, Series
from data.series_windows import FromSeason, Windows
from engine.errors import UserError
from engine.sizes import choose_fraction
from engine.splits import Rows


class SeriesData(Data):
    """Base of the time series: a subclass sets `columns` and implements `load_series`.

    A sample is a window of the past and the horizon that follows it; see `data/series_windows.py`.
    The splits follow each other in time: what lies in the horizon of one split lies in no other.

    Args:
        window: steps of the past that a forecast is made from.
        horizon: steps that are forecast.
        season: steps of the longest cycle, such as 24 in hourly data with a day's; 1: none. A
            forecast starts from the value a season before, so a window has to be longer.
        num_folds: cut what is not test into one part more than this; fold 0 trains on the first
            part and validates on the second, fold 1 trains on two and validates on the third, ...
        predict_dir: a file, of which the steps after its end are forecast; by default the test
            split, one horizon after another, as often as a whole one fits.
    """

    columns: Columns
    test_fraction = 0.2  # of the steps, the last ones

    def __init__(self, window: int, horizon: int, season: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in {"horizon": horizon, "season": season}.items():
            if value < 1:
                raise UserError(f"{name} is {value}: it must be 1 or more.")
        if window <= season:
            raise UserError(
                f"window is {window} and season {season}: a window must be longer than a season."
            )
        self.window, self.horizon, self.season = window, horizon, season
        self.rows_per_input = horizon
        self.series: Series | None = None

    def load_series(self) -> Series:
        raise NotImplementedError

    @property
    def facts(self) -> dict[str, Any]:
        values, covariates = self.columns.values or [], self.columns.covariates
        num_series, num_known = len(values), len(values) + len(covariates)
        return {
            "value_columns": values,
            "covariate_columns": covariates,
            "num_series": num_series,
            "window": self.window,
            "horizon": self.horizon,
            "season": self.season,
            "interval": self.columns.interval,
            "input_shape": [self.window - self.season, num_series + num_known],
            "known_shape": [self.horizon, num_known],
        }

    def load(self) -> tuple[Windows, Rows]:
        self.series = self.load_series()
        samples = self.windows(self.tensor(self.series))
        samples.ids = self.series.times_as_text()[self.window :][: len(samples)]
        return samples, {}

    def tensor(self, series: Series) -> Tensor:
        return torch.from_numpy(series.steps).float()

    def windows(self, steps: Tensor, with_future: bool = True) -> Windows:
        # A batch of an evaluation shall have no more than some million numbers.
        numbers = (self.window + self.horizon) * steps.shape[1] * self.batch_size
        self.evaluation_scale = min(max(2**21 // numbers, 1), 8)
        num_series = len(self.columns.values or [])
        return Windows(steps, num_series, self.window, self.horizon, with_future)

    def split(self, samples: Windows, rows: Rows) -> Rows:
        """The windows whose horizon lies in each part of the time."""
        steps, window, horizon = len(samples.samples), self.window, self.horizon
        test = steps - round(steps * self.test_fraction)
        val, end = test - round(test * choose_fraction(self, test)), test  # of the steps
        advice = "another val_fraction"
        if folds := self.hparams.num_folds:
            part = test // (folds + 1)  # the first one has the rest, too
            val = test - part * (folds - self.hparams.fold)
            end, advice = val + part, "fewer folds"
        parts = {"train": (window, val), "val": (max(val, window), end), "test": (test, steps)}
        for name, (first, last) in parts.items():
            if last - first < horizon:
                fits = max(min(horizon, (end - val) // 2), 1)
                least = (self.season + 1) * (self.season < val - fits)  # else without a season
                shorter = max(min(window, (val - fits) // 2), least)
                raise UserError(
                    f"{steps} steps are too few: {name} has {max(last - first, 0)} to forecast, "
                    f"after a window of {window}, and the horizon is {horizon}. Give more data, or "
                    f"--data.window {shorter} --data.horizon {fits}"
                    f"{' --data.season 1' * (not least)}, or {advice}."
                )
        return {
            name: torch.arange(first - window, last - window - horizon + 1)
            for name, (first, last) in parts.items()
        }

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if not self.reads_other(stage):
            self.predict_each_step_once()
        if stage == "fit":
            self.check_constant()
        if stage == "fit" and self.series:  # a child may load its steps otherwise
            times = self.series.times_as_text()
            names = ", ".join(self.columns.values or [])
            rank_zero_info(
                f"{len(times)} steps from {times[0]} to {times[-1]}: from {self.window} of them "
                f"{self.horizon} are forecast, and a season has {self.season} (--data.season). "
                f"Values: {names:.80}"
            )

    def check_constant(self) -> None:
        """Constant series are forecast without an error, which lowers the mean over all series; of
        constant covariates nothing is learned, and once they change, they are noise."""
        values = self.columns.values or []
        names, known = [*values, *self.columns.covariates], self.training_steps
        same = [n for n, one in zip(names, (known == known[0]).all(dim=0), strict=True) if one]
        text = f"In the training steps always the same: {', '.join(same)}. "
        if {*values} <= {*same}:
            raise UserError(f"{text}There is nothing to learn.")
        if same:
            rank_zero_warn(
                f"{text}Leave them out of data.values and data.covariates: errors are means over "
                "all values, and a covariate that changes later is noise."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if "test" in self.splits and not self.predicts_other:
            self.predict_each_step_once()

    def predict_each_step_once(self) -> None:
        test = self.splits["test"]
        samples = self.windows(test.dataset.samples, with_future=False)
        self.splits["predict"] = Subset(samples, test.indices[:: self.horizon])

    def tell_unlike(self, preparation: nn.Module, source: str) -> None:
        # By the change, not the level: a series may have grown since.
        if not isinstance(preparation, FromSeason):
            return
        past = self.splits["predict"].dataset.samples[: self.window]
        changes = preparation.change(past).tolist(), preparation.unit.tolist()
        for name, change, usual in zip(self.columns.values or [], *changes, strict=True):
            if change and not usual / 100 <= change <= 100 * usual:
                rank_zero_warn(
                    f"{source}: {name} changes by {change:.2g} in a season of steps, and by "
                    f"{usual:.2g} in the training: is it in the same unit?"
                )

    @property
    def training_steps(self) -> Tensor:
        split = self.splits["train"]
        return split.dataset.samples[: max(split.indices) + self.window + self.horizon]

    def preparation(self) -> nn.Module:
        num_series = self.splits["train"].dataset.num_series
        return FromSeason(self.training_steps, num_series, self.season, self.horizon)

    def read(self, source: Any) -> Windows:
        """The last window of a file or an array (steps, values and covariates)."""
        series = read_series(source, self.columns)
        self.series = series.end(source, self.window, self.horizon)
        return self.windows(self.tensor(self.series), with_future=False)

    def adopt(self, facts: dict[str, Any]) -> None:
        self.window, self.horizon, self.season = (
            facts[name] for name in ("window", "horizon", "season")
        )
        self.rows_per_input = self.horizon
        names = {"values": facts["value_columns"], "covariates": facts["covariate_columns"]}
        self.columns = replace(self.columns, **names, interval=facts.get("interval", ""))

    @property
    def predicted(self) -> list[int]:
        """The steps that are forecast, in order."""
        firsts = [i + self.window for i in self.splits["predict"].indices]
        return [first + lead for first in firsts for lead in range(self.horizon)]

    @property
    def predict_names(self) -> list[str]:
        times = self.series.times_as_text() if self.series else []
        return [times[step] for step in self.predicted]

    @property
    def predict_columns(self) -> dict[str, list]:
        """How many steps ahead each forecast is, and the true values, where they are known."""
        windows = len(self.splits["predict"])
        columns: dict[str, list] = {"lead": list(range(1, self.horizon + 1)) * windows}
        names = self.columns.values or []
        values = (
            self.series.steps[self.predicted, : len(names)] if self.series else np.zeros((0, 0))
        )
        if not np.isnan(values).all():
            for i, name in enumerate(names):
                columns[f"true_{name}"] = values[:, i].tolist()
        return columns
