"""Reads a series from a file, and checks it: every step once, in order, and only numbers."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from pyarrow import types

from data.series_types import Clock, Columns, Series, count, read_times
from engine.errors import UserError
from engine.table_checks import to_floats
from engine.table_files import as_table


def read_series(source: Any, columns: Columns) -> Series:
    """The series of a file, or of what else `as_table` takes, or of an array (T, values +
    covariates), where the times are the numbers of the steps.

    Raises:
        UserError: something in the file makes no series; names the file, and column and row.
    """
    table: Any = as_table(source, **columns.reading)
    if table is None:
        return from_array(source, columns)
    path = str(source) if isinstance(source, str | Path) else "The table"
    names = columns.value_names(table.column_names, path)
    if types.is_string(table[columns.time].type):  # of Parquet: as it is read in CSV
        table = as_table(table, path, **columns.reading)
    if len(table) < 2:
        raise UserError(f"{path} has 1 row: that is no series.")
    numbers = [
        numbers_of(table[name], f"{path}, column {name}") for name in [*names, *columns.covariates]
    ]
    place = f"{path}, column {columns.time}"
    texts = table[columns.time]
    times, zone = read_times(texts, columns.reading.get("date_format"), place)
    order = np.argsort(times, kind="stable")
    if (np.diff(order) < 0).any():
        rank_zero_info(f"{path} is not in the order of time, and was sorted.")
    times = times[order]
    if len(twice := np.flatnonzero(times[1:] == times[:-1])):
        row = order[twice[0] + 1]
        raise UserError(
            f"{place}, row {row + 1}: {texts[row]} is there twice. Keep one row for each time, "
            "with a column for each of several series; local times, which repeat an hour in "
            "autumn, need their offset (+01:00), or UTC."
        )
    counts, clock = count(times, zone)
    if columns.interval not in ("", clock.interval):
        raise UserError(
            f"{place} has steps of {clock.interval}, and the training had steps of "
            f"{columns.interval}: a forecast needs the same."
        )
    places, odd = np.divmod(counts - counts[0], clock.step)
    if len(wrong := np.flatnonzero(odd)):
        row = order[wrong[0]]
        raise UserError(
            f"{place}, row {row + 1}: {texts[row]} is no whole number of the usual steps after "
            f"{texts[order[0]]}. The times must be evenly spaced."
            + " Days of a local time are, if their offset from UTC is left out."
            * zone
        )
    if places[-1] > 10 * len(places):
        raise UserError(
            f"{place}: of ten steps of {clock.interval}, the usual one, more than nine are missing."
            " Mend the times; --data.date_format '%Y%m%d%H' would read 2026013123 as one."
        )
    steps = np.full((places[-1] + 1, len(numbers)), np.nan)
    steps[places] = np.stack(numbers, axis=1)[order]
    counts = counts[0] + np.arange(len(steps)) * clock.step
    series = Series(names, counts, steps, clock)
    fill(series, [*names, *columns.covariates], path, columns.fill_gaps)
    return series


def from_array(source: Any, columns: Columns) -> Series:
    try:
        steps, names = np.array(source, dtype=float), columns.values or []
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{source!r:.80} is no file, table or array of a series: {error}"
        ) from error
    steps = steps[:, None] if steps.ndim == 1 else steps
    wanted = [*names, *columns.covariates]
    if steps.ndim != 2 or steps.shape[1] != len(wanted):
        raise UserError(f"An array of shape {steps.shape}: give (steps, {len(wanted)}), {wanted}.")
    if np.isinf(steps).any():
        raise UserError("The array has infinite numbers.")
    series = Series(names, np.arange(len(steps)), steps, Clock("number", 1))
    fill(series, wanted, "The array", columns.fill_gaps)
    return series


def numbers_of(column: Any, place: str) -> np.ndarray:
    """Numbers (T,), NaN where there is none."""
    kinds = types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null
    if not any(is_one(column.type) for is_one in kinds):
        raise UserError(
            f"{place} holds {column.type} such as {column[0]}, no numbers, as values and "
            "covariates are: --data.values names the columns to forecast."
        )
    return to_floats(column, place)


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
                f"{path}, column {name}: there is no number at {time}. Add it, or have gaps of up "
                "to two steps take the value before: --data.fill_gaps 2. Where steps are left out "
                "on purpose, as weekends are, have the time column number the rows."
            )
        filled += int((before < places).sum())
        values[:] = values[before]
    if filled:
        rank_zero_info(
            f"{path}: {filled} missing numbers took the value before, in evaluations, too."
        )
