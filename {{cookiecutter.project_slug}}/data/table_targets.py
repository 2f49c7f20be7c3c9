"""The column that is predicted: classes or numbers."""

from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from pyarrow import types

from data.columns import as_text, kind_of, with_one_zero
from engine.errors import UserError
from engine.table_checks import quoted

# Whole numbers with more values, or with less than five rows for each, are numbers.
MOST_CLASSES = 20


def with_targets(
    table: pyarrow.Table, target: str, source: str
) -> tuple[pyarrow.Table, np.ndarray]:
    """The rows that have a target, and their numbers; how many have none is said."""
    if target not in table.column_names:
        raise UserError(
            f"{source} has no column {target!r} to predict, but {', '.join(table.column_names)}. "
            "Name one: --data.target NAME; --data.predict_dir takes a file without it."
        )
    known = arrow.is_valid(table[target])
    if types.is_floating(table[target].type):
        known = arrow.is_finite(table[target]).fill_null(False)
    numbers = np.flatnonzero(known.to_numpy())
    if len(numbers) < len(table):
        left_out = len(table) - len(numbers)
        rank_zero_info(f"{source}: left out {left_out} rows without a target, or with NA or None")
        table = table.filter(known)
    tell_total(table[target], numbers, f"{source}: {target}")
    return table, numbers


def tell_total(targets: Any, numbers: np.ndarray, place: str) -> None:
    """Warns if the last number is the sum of the others, as spreadsheets have it below a table."""
    if kind_of(targets) == "number" and len(targets) > 2:
        values = targets.cast(pyarrow.float64(), safe=False).to_numpy()
        if values[-1] and np.isclose(values[-1], values[:-1].sum(), rtol=1e-9, atol=0):
            row = f"row {numbers[-1] + 1}, {values[-1]:g}"
            rank_zero_warn(f"{place} in {row}, is the sum of all others: remove a row of totals.")


def find_classes(targets: Any, task: str, source: str) -> tuple[list[str], str]:
    """The names of the classes, none for a regression; and why, if the task is auto.

    Raises:
        UserError: the target is neither, it is always the same, or a class has too few rows.
    """
    kind, reason = kind_of(targets), ""
    if not kind:
        raise UserError(f"{source}: the target holds {targets.type}: name another column.")
    counts = arrow.value_counts(with_one_zero(targets.combine_chunks().drop_null()))
    values, sizes = counts.field("values"), counts.field("counts").to_numpy()
    if len(values) < 2:
        raise UserError(f"{source}: the target is always {values.to_pylist()}: nothing to learn.")
    if task == "auto":
        whole = kind == "number" and all(float(v).is_integer() for v in values[:1000].to_pylist())
        few = len(values) <= MOST_CLASSES and len(targets) >= 5 * len(values)
        task = (
            "classification" if kind in ("category", "boolean") or whole and few else "regression"
        )
        other = "classification" if task == "regression" else "regression"
        reason = f"taken for {task}: {len(values)} different values"
        reason += f" (or --data.task {other})" * (kind != "category")
    if task == "regression":
        if kind not in ("number", "boolean"):
            raise UserError(
                f"{source}: the target holds {targets.type}, no numbers to regress: name another "
                "column, or write numbers, such as the days since a date."
            )
        return [], reason
    rare = [str(v) for v, size in zip(values.to_pylist(), sizes, strict=True) if size < 3]
    if rare:
        raise UserError(
            f"{source}: these classes have less than 3 rows, too few to train, validate and test: "
            f"{', '.join(rare[:10])}. Leave those rows out"
            + (", or set --data.task regression." if kind == "number" else ".")
        )
    found = sorted(as_text(values).to_pylist(), key=float if kind == "number" else None)
    if len({name.strip() for name in found}) < len(found):
        raise UserError(
            f"{source}: the target has classes that differ in spaces only, {found}: mend them."
        )
    return found, reason


def tell_copies(table: pyarrow.Table, inputs: list[str], target: str, source: str) -> None:
    """Warns of inputs that are the target in other words, by a thousand rows: a number that grows
    in proportion to it, or a few values of which each goes with one of its."""
    some = table.take(np.unique(np.linspace(0, len(table) - 1, 1000).astype(int)))
    count = len(some[target].unique())
    for name in inputs:
        kinds = {kind_of(some[name]), kind_of(some[target])}
        same = count > 1 and 2 * count <= len(some) and count == len(some[name].unique())
        if same:
            same = count == len(some.group_by([name, target]).aggregate([]))
        elif kinds == {"number"} and count > 2:
            values = [some[one].cast(pyarrow.float64(), safe=False) for one in (name, target)]
            with np.errstate(all="ignore"):
                same = abs(np.corrcoef(*values)[0, 1]) > 1 - 1e-9
        if same:
            rank_zero_warn(
                f"{source}: {name} says what {target} is; if it is not known before, leave it out: "
                f"--data.leave_out {quoted(name)}"
            )
