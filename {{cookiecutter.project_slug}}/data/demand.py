"""Electricity demand of England and Wales in MW, each half-hour of twelve weeks of 2000 (Taylor
2003), which pmdarima brings, without a download."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from data.series import SeriesData
from data.series_types import Clock, Columns, Series

HALF_HOUR = np.timedelta64(30, "m")


class Demand(SeriesData):
    """Eight weeks to fit and four to test, as in the paper. A file to predict from has the columns
    `time` and `demand`."""

    test_fraction = 1 / 3

    def __init__(
        self, window: int = 480, horizon: int = 48, season: int = 336, **kwargs: Any
    ) -> None:
        super().__init__(window, horizon, season, **kwargs)
        self.columns = Columns(time="time", values=["demand"], interval="0:30:00")

    def load_series(self) -> Series:
        # What `load_taylor` gives, without the seconds that importing all of pmdarima takes.
        [package] = find_spec("pmdarima").submodule_search_locations  # type: ignore[union-attr,misc]
        code = Path(package, "datasets", "taylor.py").read_text("utf-8")
        numbers = re.search(r"np\.array\(\[([\d,\s]+)\]\)", code)[1]  # type: ignore[index]
        values = np.array(numbers.split(","), dtype=float)
        half_hours = np.datetime64("2000-06-05T00:00", "us") + np.arange(len(values)) * HALF_HOUR
        clock = Clock("us", int(HALF_HOUR / np.timedelta64(1, "us")))
        return Series(["demand"], half_hours.astype(np.int64), values[:, None], clock)
