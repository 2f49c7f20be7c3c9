"""The times of a series: checked, and counted on from."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from pyarrow import types

from engine.errors import UserError
from engine.table_checks import as_days

MONTH = r"^\d{4}-\d\d$"
DAY = np.timedelta64(1, "D")


@dataclass
class Clock:
    """Counts the steps of a series.

    Args:
        unit: of the counts: number, us (microseconds) or M (months).
        step: counts from one step to the next.
        offset: from the start of a month.
        zone: whether the times are in UTC, since they came with offsets from it.
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


def read_times(column: Any, date_format: str | None, place: str) -> tuple[np.ndarray, bool]:
    """Whole numbers, or times (datetime64, in UTC where they came with offsets from it), and whether
    they did.

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
        return column.to_numpy(), False
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
            f"{place}: {error}. Times are whole numbers or as 2024-12-31 23:30, all of them with an offset "
            "from UTC or none; --data.date_format '%d.%m.%Y %H:%M' tells others."
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
