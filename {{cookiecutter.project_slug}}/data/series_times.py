"""The times of a series: read from text, checked, and counted on from."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from engine.errors import UserError

NUMBER = re.compile(r"-?\d+")
OFFSET = re.compile(r"(.*:.*?) ?(Z|[+-]\d\d:?\d\d)")  # of a time zone
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


def read_times(
    texts: list[str], lines: list[int], form: str | None, place: str
) -> tuple[np.ndarray, bool]:
    """Whole numbers, or times (datetime64), and whether these came with time zones.

    Raises:
        UserError: a text is no time; names its line.
    """
    if form:
        how = f"as in time_format {form!r}"
        texts = parse(
            texts, lines, lambda text: datetime.strptime(text, form).isoformat(), place, how
        )
    elif all(map(NUMBER.fullmatch, texts)):
        return np.array(texts, dtype=np.int64), False
    found = [OFFSET.fullmatch(text) for text in texts]
    zoned = any(found)
    if zoned and not all(found):
        line = lines[found.index(None)]
        raise UserError(f"{place}, line {line}: a time without a time zone, others have one.")
    texts = [match[1] if match else text for match, text in zip(found, texts, strict=True)]
    try:
        times = np.array(texts, dtype="datetime64[us]")
    except ValueError:
        times = np.array(["NaT"], dtype="datetime64[us]")
    if np.isnat(times).any():
        how = "as in 2024-12-31 or 2024-12-31 23:30; time_format tells others: '%d.%m.%Y %H:%M'"
        texts = parse(texts, lines, iso_time, place, how)
    if zoned:
        times -= np.array([seconds(match[2]) for match in found if match], dtype="timedelta64[s]")
    return times, zoned


def parse(
    texts: list[str], lines: list[int], function: Callable[[str], str], place: str, how: str
) -> list[str]:
    """What a function makes of texts; a UserError with the line of the first that it does not take."""
    parsed = []
    for line, text in zip(lines, texts, strict=True):
        try:
            parsed.append(function(text))
        except ValueError:
            raise UserError(f"{place}, line {line}: {text!r} is no time {how}.") from None
    return parsed


def iso_time(text: str) -> str:
    if np.isnat(np.datetime64(text)):
        raise ValueError
    return text


def seconds(offset: str) -> int:
    """Of an offset from UTC: Z, +01:00 or -0530."""
    if offset == "Z":
        return 0
    digits = offset[1:].replace(":", "")
    return int(f"{offset[0]}1") * (3600 * int(digits[:2]) + 60 * int(digits[2:]))


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
