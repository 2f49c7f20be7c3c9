"""Which columns make a series, and the series that they make."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data.series_times import Clock
from engine.errors import UserError


@dataclass
class Columns:
    """Which columns of a table are read, and how.

    Args:
        time: of the times.
        values: what is forecast; None: all other columns.
        covariates: numbers that are known of the future, too.
        fill_gaps: missing steps in a row, up to so many, take the value before.
        reading: arguments of `read_csv`.
        interval: from one step to the next, where it is known.
    """

    time: str = "time"
    values: list[str] | None = None
    covariates: list[str] = field(default_factory=list)
    fill_gaps: int = 0
    reading: dict[str, Any] = field(default_factory=dict)
    interval: str = ""

    def value_names(self, known: list[str], place: str) -> list[str]:
        """The names of what is forecast, among those of a table.

        Raises:
            UserError: it lacks a column, or one is asked for twice.
        """
        given = [self.time, *(self.values or []), *self.covariates]
        for name in given:
            if name not in known:
                raise UserError(f"{place} has no column {name!r}; it has {', '.join(known)}.")
            if given.count(name) > 1:
                raise UserError(f"{name} is named twice among time, values and covariates.")
        if self.values is not None:
            return self.values
        names = [name for name in known if name not in given]
        if not names:
            raise UserError(f"{place} has no column of values beside {', '.join(given)}.")
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
