"""A series from a file, checked: each step of its clock once, in order, and numbers only."""

from dataclasses import dataclass, field

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from data.series_files import File
from data.series_times import Clock, count, read_times
from engine.errors import UserError

MISSING = {"", "na", "n/a", "nan", "nat", "null", "none"}


@dataclass
class Columns:
    """Which columns of a file are read, and how.

    Args:
        time: of the times.
        values: what is forecast; None: all other columns.
        covariates: numbers that are known of the future, too.
        time_format: of the times, as `datetime.strptime` takes it; by default ISO 8601.
        fill_gaps: missing steps in a row, up to so many, take the value before.
    """

    time: str = "time"
    values: list[str] | None = None
    covariates: list[str] = field(default_factory=list)
    time_format: str | None = None
    fill_gaps: int = 0

    def value_names(self, file: File) -> list[str]:
        """The names of what is forecast.

        Raises:
            UserError: the file lacks a column, or one is asked for twice.
        """
        given = [self.time, *(self.values or []), *self.covariates]
        for name in given:
            if name not in file.names:
                raise UserError(
                    f"{file.path} has no column {name!r}; it has {', '.join(file.names)}."
                )
            if given.count(name) > 1:
                raise UserError(f"{name} is named twice among time, values and covariates.")
        names = [name for name in file.names if name not in given]
        names = names if self.values is None else self.values
        if not names:
            raise UserError(f"{file.path} has no column of values beside {', '.join(given)}.")
        return names


@dataclass
class Series:
    """A series with a step for each time of its clock.

    Args:
        columns: the names of its values.
        counts: of the clock (T,).
        steps: values and covariates (T, values + covariates); values are NaN after the last that is
            known.
        clock: tells the times.
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

    def end(self, source: str, window: int, horizon: int) -> "Series":
        """The last window, and the horizon that follows it."""
        last, more = self.num_known, len(self.steps) - self.num_known
        if last < window:
            raise UserError(f"{source} has {last} steps, fewer than a window: {window}.")
        if self.steps.shape[1] > len(self.columns) and more < horizon:
            raise UserError(
                f"{source} has covariates of {more} steps after the last values: a forecast needs "
                f"{horizon}. Add rows that have a time and covariates, but no values."
            )
        return self.part(last - window, last + horizon)


def read_series(path: str, columns: Columns) -> Series:
    """The columns of a file.

    Raises:
        UserError: something in the file makes no series; names the file, and line and column.
    """
    file = File(path)
    names = columns.value_names(file)
    numbers, lines, texts = [], [], []
    for chunk, table in file.chunks([columns.time, *names, *columns.covariates]):
        lines += chunk
        texts += [text.strip() for text in table.pop(columns.time)]
        found = [to_numbers(table[name], chunk, f"{path}, column {name}") for name in table]
        numbers.append(np.stack(found, axis=1))
    if len(lines) < 2:
        raise UserError(f"{path} has {len(lines)} rows: that is no series.")
    place = f"{path}, column {columns.time}"
    times, zone = read_times(texts, lines, columns.time_format, place)
    order = np.argsort(times, kind="stable")
    if (np.diff(order) < 0).any():
        rank_zero_info(f"{path} is not in the order of time, and was sorted.")
    times = times[order]
    if len(twice := np.flatnonzero(times[1:] == times[:-1])):
        row = order[twice[0] + 1]
        raise UserError(
            f"{place}, line {lines[row]}: {texts[row]} is there twice. Keep one row for each time; "
            "local times, which repeat an hour in autumn, need their offset (+01:00), or UTC."
        )
    counts, clock = count(times, zone)
    places, odd = np.divmod(counts - counts[0], clock.step)
    if len(wrong := np.flatnonzero(odd)):
        row = order[wrong[0]]
        raise UserError(
            f"{place}, line {lines[row]}: {texts[row]} is no whole number of the usual steps after "
            f"{texts[order[0]]}. The times must be evenly spaced."
        )
    if places[-1] > 10 * len(places):
        raise UserError(f"{place}: of ten steps more than nine are missing.")
    steps = np.full((places[-1] + 1, numbers[0].shape[1]), np.nan)
    steps[places] = np.concatenate(numbers)[order]
    counts = counts[0] + np.arange(len(steps)) * clock.step
    series = Series(names, counts, steps, clock)
    fill(series, [*names, *columns.covariates], path, columns.fill_gaps)
    return series


def to_numbers(texts: list[str], lines: list[int], place: str) -> np.ndarray:
    """Numbers (T,) with a point or a comma; NaN where there is none."""
    texts = ["nan" if text.strip().lower() in MISSING else text.replace(",", ".") for text in texts]
    try:
        numbers = np.array(texts, dtype=float)
    except ValueError:
        numbers = np.array([value_of(text) for text in texts])
    if len(wrong := np.flatnonzero(np.isinf(numbers))):
        raise UserError(f"{place}, line {lines[wrong[0]]}: {texts[wrong[0]]!r} is no number.")
    return numbers


def value_of(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")


def fill(series: Series, names: list[str], path: str, most: int) -> None:
    """Gives missing steps the value before, in place.

    Raises:
        UserError: more than `most` in a row are missing, or the first.
    """
    filled = 0
    for i, name in enumerate(names):
        last = series.num_known if i < len(series.columns) else len(series.steps)
        values, places = series.steps[:last, i], np.arange(last)
        before = np.maximum.accumulate(np.where(np.isnan(values), -1, places))
        if len(far := np.flatnonzero((places - before > most) | (before < 0))):
            time = series.clock.text(series.counts[far[:1]])[0]
            raise UserError(
                f"{path}, column {name}: there is no number at {time}. Add it, or have gaps of up to "
                "N steps take the value before: fill_gaps N."
            )
        filled += int((before < places).sum())
        values[:] = values[before]
    if filled:
        rank_zero_info(f"{path}: {filled} missing numbers took the value before.")
