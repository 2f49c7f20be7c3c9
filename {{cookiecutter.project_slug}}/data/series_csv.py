"""Your own series, in a CSV or Parquet file with a row for each time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.series import SeriesData
from data.series_reading import read_series
from data.series_types import Columns, Series
from engine.errors import UserError
from engine.table_files import OPTIONS


class SeriesCSV(SeriesData):
    """The columns of one file. Times are ISO 8601 or whole numbers, evenly spaced, by months too;
    with offsets from UTC they become UTC.

    Args:
        data_path: a .csv or .parquet file.
        time: column of the times.
        values: columns that are forecast; by default all others.
        covariates: columns of numbers that are known of the future, too. A file to predict from has
            rows with these, and without values, for the steps that are forecast.
        window: see `data/series.py`, as for horizon and season.
        horizon: steps that are forecast.
        season: steps of the longest cycle; 1: none. By default a day of steps that are shorter, a
            week of days, and a year of weeks, months and quarters, if the window is longer.
        fill_gaps: where steps are missing, up to so many in a row take the value before.
        separator: between the fields; auto finds it in the first line.
        decimal: the decimal point or comma; auto finds it in the first rows.
        encoding: of the text; auto: UTF-8, UTF-16 by its byte-order mark, or else Windows-1252.
        missing: what stands for a missing value, beside nothing, NA, NaN, null and the like.
        date_format: of times not written 2026-01-31 23:30 or 20260131, such as `%d.%m.%Y %H:%M`.
    """

    def __init__(
        self,
        data_path: str = "datasets/series.csv",
        time: str = "time",
        values: list[str] | None = None,
        covariates: list[str] | None = None,
        window: int = 192,
        horizon: int = 24,
        season: int | None = None,
        fill_gaps: int = 0,
        separator: str = "auto",
        decimal: str = "auto",
        encoding: str = "auto",
        missing: Sequence[str] = (),
        date_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(window, horizon, 1 if season is None else season, **kwargs)
        if fill_gaps < 0:
            raise UserError(f"fill_gaps is {fill_gaps}: it must be 0 or more.")
        self.path = Path(data_path).expanduser()
        reading = {name: self.hparams[name] for name in OPTIONS}
        self.columns = Columns(time, values, list(covariates or []), fill_gaps, reading)
        if self.path.is_file() or not self.hparams.predict_dir:
            self.whole = read_series(self.path, self.columns)
            self.columns.values = self.whole.columns
            self.columns.interval = self.whole.clock.interval
            self.season = season or self.whole.clock.season(window)

    def load_series(self) -> Series:
        return self.whole.part(0, self.whole.num_known)
