"""What a series is: the columns that make it, the clock of its times, and its steps."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from pyarrow import types

from engine.errors import UserError
from engine.table_checks import as_days

MONTH = r"^\d{4}-\d\d$"
DAY = np.timedelta64(1, "D")


@dataclass
class Columns:
    """Which columns of a table are read, and how.

    Args:
        time: column of the times.
        values: columns to forecast; None: all other columns.
        covariates: columns of numbers that are known of the future, too.
        fill_gaps: up to so many missing steps in a row take the value before.
        reading: arguments of `read_csv`.
        interval: time from one step to the next, if it is known.
    """

    time: str = "time"
    values: list[str] | None = None
    covariates: list[str] = field(default_factory=list)
    fill_gaps: int = 0
    reading: dict[str, Any] = field(default_factory=dict)
    interval: str = ""

    def value_names(self, known: list[str], place: str) -> list[str]:
        """The names of the columns to forecast, among those of a table.

        Raises:
            UserError: it lacks a column, or one is asked for twice.
        """
        given = [self.time, *(self.values or []), *self.covariates]
        for name in given:
            if name not in known:
                raise UserError(
                    f"{place} has no column {name!r}; it has {', '.join(known)}. Name what it has: "
                    "--data.time NAME, --data.values, --data.covariates."
                )
            if given.count(name) > 1:
                raise UserError(f"{name} is named twice among time, values and covariates.")
        names = [name for name in known if name not in given]
        if self.values is not None:
            if names and self.interval:
                rank_zero_info(f"{place}: the fit does not forecast {', '.join(names)}: left out.")
            return self.values
        if not names:
            raise UserError(f"{place} has no column of values beside {', '.join(given)}.")
        return names


@dataclass
class Clock:
    """Counts the steps of a series.

    Args:
        unit: of the counts: number, us (microseconds) or M (months).
        step: counts from one step to the next.
        offset: of each time from the start of its month.
        zone: whether the times are in UTC, because they had offsets from it.
    """

    unit: str
    step: int
    offset: np.timedelta64 = np.timedelta64(0, "us")
    zone: bool = False

    @property
    def interval(self) -> str:
        """From one step to the next."""
        if self.unit == "us":
            return str(timedelta(microseconds=self.step))
        return f"{self.step} months" if self.unit == "M" else str(self.step)

    def season(self, window: int) -> int:
        """Steps of the usual cycle, if a window is longer: a day of what is shorter, a week of
        days, a year of weeks, months and quarters. Without one 1."""
        microseconds = [int(days * DAY / np.timedelta64(1, "us")) for days in (1, 7, 364)]
        cycles = {"us": microseconds, "M": [12]}.get(self.unit, [])
        whole = [cycle // self.step for cycle in cycles if not cycle % self.step]
        season = next((steps for steps in whole if steps > 1), 1)
        return season if season < window else 1

    def text(self, counts: np.ndarray) -> list[str]:
        if self.unit == "number":
            return [str(count) for count in counts]
        times: Any = (
            counts.astype(f"datetime64[{self.unit}]").astype("datetime64[us]") + self.offset
        )
        # Midnights are shown as days, full minutes without seconds.
        for unit in ("D", "m", "s", "us"):
            if (times.astype(f"datetime64[{unit}]") == times).all():
                break
        suffix = "+00:00" if self.zone and unit != "D" else ""
        return [f"{text}{suffix}" for text in np.datetime_as_string(times, unit=unit)]


@dataclass
class Series:
    """A series with a step for each time of its clock.

    Args:
        columns: names of the values.
        counts: of the clock (T,).
        steps: values and covariates (T, values + covariates); values are NaN after the last known
            one.
        clock: turns counts into times.
    """

    columns: list[str]
    counts: np.ndarray
    steps: np.ndarray
    clock: Clock

    @property
    def num_known(self) -> int:
        known = np.flatnonzero(~np.isnan(self.steps[:, : len(self.columns)]).all(axis=1))
        return int(known[-1]) + 1 if len(known) else 0

    def times_as_text(self) -> list[str]:
        return self.clock.text(self.counts)

    def part(self, first: int, last: int) -> "Series":
        """The steps from first to last; those after the end of the series are NaN."""
        more = np.full((max(last - len(self.steps), 0), self.steps.shape[1]), np.nan)
        steps = np.concatenate([self.steps, more])[first:last]
        counts = self.counts[0] + np.arange(first, last) * self.clock.step
        return Series(self.columns, counts, steps, self.clock)

    def end(self, source: Any, window: int, horizon: int) -> "Series":
        """The last window, and the horizon that follows it."""
        source = source if isinstance(source, str) else "What is given"
        last, more = self.num_known, len(self.steps) - self.num_known
        if last < window:
            raise UserError(f"{source} has {last} steps, fewer than a window: {window}.")
        if self.steps.shape[1] > len(self.columns) and more < horizon:
            raise UserError(
                f"{source} has covariates of {more} steps after the last values: a forecast needs "
                f"{horizon}. Add rows that have a time and covariates, but no values."
            )
        return self.part(last - window, last + horizon)


def read_times(column: Any, date_format: str | None, place: str) -> tuple[np.ndarray, bool]:
    """Whole numbers, or times (datetime64, in UTC where they came with offsets from it), and
    whether they did.

    Raises:
        UserError: they are something else, or one is missing; names its row.
    """
    if column.null_count:
        row = arrow.index(column.is_null(), True).as_py()
        raise UserError(f"{place}, row {row + 1}: there is no time.")
    if date_format and types.is_integer(column.type):
        column = arrow.strptime(column.cast(pyarrow.string()), format=date_format, unit="us")
    column = as_days(column)
    if types.is_integer(column.type):
        return column.cast(pyarrow.int64()).to_numpy(), False  # Parquet has smaller ones
    if (
        types.is_string(column.type)
        and arrow.all(arrow.match_substring_regex(column, MONTH)).as_py()
    ):
        column = arrow.binary_join_element_wise(column, "01", "-").cast(pyarrow.date32())
    zone = types.is_timestamp(column.type) and column.type.tz is not None
    try:
        return column.cast(pyarrow.timestamp("us")).to_numpy(), zone
    except pyarrow.ArrowException as error:
        raise UserError(
            f"{place}: {error}. Times are whole numbers or as 2024-12-31 23:30, all of them with "
            "an offset from UTC or none; --data.date_format '%d.%m.%Y %H:%M' tells others."
        ) from error


def count(times: np.ndarray, zone: bool) -> tuple[np.ndarray, Clock]:
    """Counts of the steps, which rise, and the clock that they are of: by months where all times
    have the same place in their month."""
    zero = np.timedelta64(0, "us")
    if times.dtype == np.int64:
        return times, Clock("number", usual_step(times), zero, zone)
    for shift in (zero, DAY):  # DAY: the ends of months
        months = (times + shift).astype("datetime64[M]")
        offsets = times - months.astype("datetime64[us]")
        if len(times) > 2 and (offsets == offsets[0]).all():
            counts = months.astype(np.int64)
            return counts, Clock("M", usual_step(counts), offsets[0], zone)
    counts = times.astype(np.int64)
    return counts, Clock("us", usual_step(counts), zero, zone)


def usual_step(counts: np.ndarray) -> int:
    steps, numbers = np.unique(np.diff(counts), return_counts=True)
    return int(steps[numbers.argmax()])
