"""Reads a series from a CSV or Parquet file, and checks it."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info

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
        last = self.num_known
        if last < window:
            raise UserError(f"{source} has {last} steps, fewer than a window: {window}.")
        if self.steps.shape[1] > len(self.columns) and len(self.steps) < last + horizon:
            raise UserError(
                f"{source} has covariates of {len(self.steps) - last} steps after the last values: a "
                f"forecast needs {horizon}. Add rows that have a time and covariates, but no values."
            )
        return self.part(last - window, last + horizon)


def read_series(path: str, columns: Columns) -> Series:
    """The columns of a file.

    Raises:
        UserError: something in the file makes no series; names the file, and line and column.
    """
    table = read_table(path)
    names = value_columns(path, table, columns)
    if not table[columns.time]:
        raise UserError(f"{path} has no rows.")
    wanted = [*names, *columns.covariates]
    place = f"{path}, column {columns.time}"
    times, zone = read_times(
        [text.strip() for text in table[columns.time]], columns.time_format, place
    )
    numbers = np.stack(
        [to_numbers(table[name], f"{path}, column {name}") for name in wanted], axis=1
    )
    order = np.argsort(times, kind="stable")
    if (np.diff(order) < 0).any():
        rank_zero_info(f"{path} is not in the order of time, and was sorted.")
    times, numbers = times[order], numbers[order]
    if twice := np.flatnonzero(times[1:] == times[:-1]).tolist():
        row = order[twice[0] + 1]
        raise UserError(
            f"{place}, line {row + 2}: {table[columns.time][row]} is there twice. Keep one row for each "
            "time; local times that repeat an hour in autumn need their offset (+01:00), or UTC."
        )
    counts, clock = count(times, zone) if len(times) > 1 else (times.astype(np.int64), None)
    if clock is None:
        raise UserError(f"{path} has a single row: no series.")
    places, odd = np.divmod(counts - counts[0], clock.step)
    if len(found := np.flatnonzero(odd)):
        shown = clock.text(counts[max(found[0] - 1, 0) : found[0] + 1])
        raise UserError(
            f"{place}: from {' to '.join(shown)} is no whole number of the usual steps. The times must "
            "be evenly spaced."
        )
    steps = np.full((places[-1] + 1, len(wanted)), np.nan)
    steps[places] = numbers
    counts = counts[0] + np.arange(len(steps)) * clock.step
    series = Series(names, counts, steps, clock)
    fill(series, wanted, path, columns.fill_gaps)
    return series


def fill(series: Series, names: list[str], path: str, most: int) -> None:
    """Gives missing steps the value before, in place.

    Raises:
        UserError: more than `most` in a row are missing, or the first.
    """
    filled = 0
    for i, name in enumerate(names):
        last = series.num_known if i < len(series.columns) else len(series.steps)
        values = series.steps[:last, i]
        known = np.where(np.isnan(values), -1, np.arange(last))
        before = np.maximum.accumulate(known)
        far = np.flatnonzero((np.arange(last) - before > most) | (before < 0))
        if len(far):
            time = series.clock.text(series.counts[far[:1]])[0]
            raise UserError(
                f"{path}, column {name}: no number at {time}"
                f"{f', nor at {most} steps before' if most else ''}. Add it, or let gaps of up to N "
                "steps take the value before: --data.fill_gaps N."
            )
        filled += int((known < 0).sum())
        values[:] = values[before]
    if filled:
        rank_zero_info(f"{path}: {filled} missing numbers took the value before.")


def value_columns(path: str, table: dict[str, list[str]], columns: Columns) -> list[str]:
    """The names of what is forecast.

    Raises:
        UserError: the file lacks a column.
    """
    given = [columns.time, *(columns.values or []), *columns.covariates]
    for name in given:
        if name not in table:
            raise UserError(f"{path} has no column {name!r}; it has {', '.join(table)}.")
    if twice := [name for name, number in Counter(given).items() if number > 1]:
        raise UserError(f"{twice[0]} cannot be two of time, values and covariates.")
    names = (
        [name for name in table if name not in given] if columns.values is None else columns.values
    )
    if not names:
        raise UserError(f"{path} has no column of values beside {', '.join(given)}.")
    return names


def to_numbers(texts: list[str], place: str) -> np.ndarray:
    """Numbers (T,) with a point or a comma; NaN where there is none."""
    cleaned = [
        "nan" if text.strip().lower() in MISSING else text.replace(",", ".") for text in texts
    ]
    for line, text in enumerate(cleaned, start=2):
        try:
            value = float(text)
        except ValueError:
            value = float("inf")
        if value in (float("inf"), float("-inf")):
            raise UserError(f"{place}, line {line}: {texts[line - 2]!r} is no number.")
    return np.array(cleaned, dtype=float)


def read_table(path: str, rows: int | None = None) -> dict[str, list[str]]:
    """The columns of a file by name, as text: all rows, or only some."""
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    if path.endswith(".parquet"):
        from pyarrow import parquet, string

        found = parquet.read_table(path)
        return {
            name: [text or "" for text in found[name].cast(string()).to_pylist()]
            for name in found.column_names
        }
    text = decode(Path(path).read_bytes())
    header = text.partition("\n")[0]
    delimiter = max(",;\t|", key=header.count)
    lines = csv.reader(text.splitlines(), delimiter=delimiter)
    names = [name.strip() for name in next(lines, [])]
    if not any(names):
        raise UserError(f"{path} is empty.")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise UserError(f"{path} has several columns with the name {twice[0]!r}.")
    cells = []
    for line in lines:
        if line and len(line) != len(names):
            raise UserError(
                f"{path}, line {lines.line_num}: it has {len(line)} cells, the header {len(names)}."
            )
        if line:
            cells.append(line)
    columns = zip(*cells, strict=True) if cells else [[]] * len(names)
    return dict(zip(names, map(list, columns), strict=True))


def decode(raw: bytes) -> str:
    """The text of a file, in UTF-8, in UTF-16 with its mark, or as Windows writes it."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        rank_zero_info("The file is not in UTF-8: it is read as Windows-1252.")
        return raw.decode("cp1252", errors="replace")
