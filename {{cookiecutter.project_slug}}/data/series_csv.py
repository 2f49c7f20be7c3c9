"""Your own series, in a CSV or Parquet file with a row for each time."""

from pathlib import Path
from typing import Any

from data.series import SeriesData
from data.series_files import File
from data.series_reading import read_series
from data.series_types import Columns, Series
from engine.errors import UserError


class SeriesCSV(SeriesData):
    """The columns of one file. Times are ISO 8601 or whole numbers, evenly spaced, by months too;
    with offsets from UTC they become UTC.

    Args:
        path: of the file; with the ending `.parquet` a Parquet file (needs pyarrow).
        time: column of the times.
        values: columns that are forecast; by default all others.
        covariates: columns of numbers that are known of the future, too. A file to predict from has
            rows with these, and without values, for the steps that are forecast.
        window: see `data/series.py`, as for horizon and season.
        horizon: steps that are forecast.
        season: steps of the longest cycle; 1: none.
        time_format: of the times where they are not ISO 8601, such as `%d.%m.%Y %H:%M`.
        fill_gaps: where steps are missing, up to so many in a row take the value before.
    """

    def __init__(
        self,
        path: str = "datasets/series.csv",
        time: str = "time",
        values: list[str] | None = None,
        covariates: list[str] | None = None,
        window: int = 192,
        horizon: int = 24,
        season: int = 24,
        time_format: str | None = None,
        fill_gaps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(window, horizon, season, **kwargs)
        if fill_gaps < 0:
            raise UserError(f"fill_gaps is {fill_gaps}: it must be 0 or more.")
        self.path = Path(path).expanduser()
        self.columns = Columns(time, values, list(covariates or []), time_format, fill_gaps)
        if self.path.is_file() or not self.hparams.predict_dir:
            self.columns.values = self.columns.value_names(File(self.path))

    def load_series(self) -> Series:
        series = read_series(str(self.path), self.columns)
        return series.part(0, series.num_known)
