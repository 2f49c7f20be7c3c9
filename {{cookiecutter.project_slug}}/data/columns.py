"""The columns of a table: what they are by their types, and their values as numbers."""

from collections.abc import Collection, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from pyarrow import types
from torch import Tensor

from engine.errors import UserError
from engine.sample_keys import hash_rows, hash_text, mix
from engine.table_checks import as_days, quoted, to_floats

# As checkpoints hold it: name, kind (number, boolean, date, time or category), `missing` (whether
# training rows lack values), and of a category the `categories` of the training rows.
Column = dict[str, Any]

DAY = 24 * 60 * 60 * 1000  # milliseconds


def kind_of(array: Any) -> str:
    """The kind of a column: number, boolean, date, time, category, or "" for anything else."""
    kind = array.type
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date"
    if types.is_time(kind):
        return "time"
    text = types.is_string(kind) or types.is_dictionary(kind)
    return "category" if text else ""


def by_kind(columns: Sequence[Column]) -> tuple[list[Column], list[Column]]:
    """The columns that become numbers, and those that are categories."""
    numbers = [column for column in columns if column["kind"] != "category"]
    return numbers, [column for column in columns if column["kind"] == "category"]


def with_one_zero(array: Any) -> Any:
    """Numbers with 0 in the place of -0."""
    is_float = types.is_floating(array.type)
    return arrow.add(array, pyarrow.scalar(0, array.type)) if is_float else array


def as_text(array: Any) -> Any:
    """Values as text, the same from any kind of file: whole numbers have no decimal point."""
    if types.is_decimal(array.type):
        array = array.cast(pyarrow.float64())
    if types.is_floating(array.type):
        array = with_one_zero(array)
        whole = arrow.all(arrow.equal(array, arrow.floor(array))).as_py()
        array = array.cast(pyarrow.int64()) if whole is not False else array
    return array.cast(pyarrow.string())


def keys_of_rows(table: pyarrow.Table) -> Tensor:
    """A hash (N,) of the content of each row, whatever the other rows are."""
    keys = np.zeros(len(table), np.uint64)
    for number, name in enumerate(sorted(table.column_names)):
        array = table[name].combine_chunks()
        if not kind_of(array):
            continue  # left out, or refused
        if kind_of(array) in ("number", "boolean"):
            floats = array.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
            values = floats.view(np.int64)
            if types.is_integer(array.type):  # which floats hold up to 2^53
                exact = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
                values = np.where(np.abs(floats) > 2**53, exact, values)
        else:
            texts = as_text(array).dictionary_encode()
            hashes = np.array([0, *map(hash_text, texts.dictionary.to_pylist())], np.uint64)
            values = hashes[texts.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1]
        keys = mix(keys ^ hash_rows(torch.tensor(values.view(np.int64)), number))
    return torch.from_numpy(keys.view(np.int64))


def find_columns(
    table: pyarrow.Table, rows: np.ndarray, categorical: Collection[str], source: str
) -> list[Column]:
    """The input columns, by what is in `rows`, the training rows. Columns that cannot help are left
    out, with a message."""
    columns: list[Column] = []
    left_out: dict[str, str] = {}
    for name in table.column_names:
        values = as_days(table[name].take(pyarrow.array(rows)).combine_chunks())
        kind = "category" if name in categorical else kind_of(values)
        lacking = values.null_count
        if kind == "number" and types.is_floating(values.type):
            lacking = len(values) - (arrow.sum(arrow.is_finite(values)).as_py() or 0)
        if lacking == len(values):
            left_out[name] = "no values"
        elif not kind:
            raise UserError(f"{source}: column {name} holds {values.type}; name it in leave_out.")
        elif kind == "number" and counts_rows(table[name]):
            left_out[name] = "the number of the row"
        elif not lacking and is_constant(values, kind):
            several = " about" * (len(values.unique()) > 1)  # the same in float64
            left_out[name] = f"always{several} {values[0]}"
        elif kind == "category":
            found = sorted(as_text(values).unique().drop_null().to_pylist())
            if len({text.strip() for text in found}) < len(found):
                rank_zero_warn(
                    f"{source}: {name} has categories that differ in spaces only; mend them"
                )
            if len(found) > max(20, len(rows) / 2) and name not in categorical:
                left_out[name] = (
                    f"{len(found)} different texts in {len(rows)} rows, as {found[0]!r:.40}"
                )
            else:
                column = {"name": name, "kind": kind, "missing": lacking > 0}
                columns.append({**column, "categories": found})
        else:
            columns.append({"name": name, "kind": kind, "missing": lacking > 0})
            if kind == "number" and rises(table[name]):
                rank_zero_info(
                    f"{source}: {name} rises with each row; if that is how the file is sorted or "
                    f"numbered, as ids are, leave it out: --data.leave_out {quoted(name)}"
                )
    if left_out:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        rank_zero_info(f"{source}: left out {reasons}")
    if not columns:
        raise UserError(f"{source}: no column is left to predict from.")
    return columns


def described(columns: list[Column]) -> str:
    """How many columns there are of each kind, and the first of them."""
    names: dict[str, list[str]] = {}
    for column in columns:
        names.setdefault(column["kind"], []).append(column["name"])
    several = {kind: f"{kind}s" for kind in names} | {"category": "categories"}
    named = ((kind, found, shorten(", ".join(found), 60)) for kind, found in names.items())
    return "; ".join(
        f"{len(found)} {several[kind] if len(found) > 1 else kind} ({text})"
        for kind, found, text in named
    )


def is_constant(array: Any, kind: str) -> bool:
    """Whether all values are the same; numbers in float64."""
    if kind != "number":
        return len(array.unique()) == 1
    extremes = arrow.min_max(array.cast(pyarrow.float64(), safe=False))
    return extremes["min"] == extremes["max"]


def rises(array: Any) -> bool:
    """Whether whole numbers rise from each row to the next."""
    if not types.is_integer(array.type) or array.null_count or len(array) < 2:
        return False
    numbers = array.to_numpy()
    return bool((numbers[1:] > numbers[:-1]).all())


def counts_rows(array: Any) -> bool:
    """Whether a column only counts the rows, as the index that data frames are written with."""
    extremes = array[0].as_py(), array[len(array) - 1].as_py()
    return rises(array) and extremes in ((0, len(array) - 1), (1, len(array)))


def places_of(values: Any, known: Sequence[str]) -> Tensor:
    """The place (N,) of each value among the known texts, -1 where it is none of them."""
    places = arrow.index_in(as_text(values), value_set=pyarrow.array(known, pyarrow.string()))
    return torch.from_numpy(places.fill_null(-1).to_numpy().astype(np.int64))


def encode(
    table: pyarrow.Table, columns: list[Column], source: str, row_numbers: Any = None
) -> tuple[Tensor, Tensor]:
    """Numbers (N, n), float32 with NaN for what is missing, and codes of the categories (N, c)."""
    known = {*table.column_names}
    if lacking := [c["name"] for c in columns if c["name"] not in known]:
        raise UserError(
            f"{source} lacks columns of the training: {', '.join(lacking)}. Add them; what is not "
            "known may be empty."
        )
    numbers, categories = by_kind(columns)
    values = torch.empty(len(table), len(numbers))
    for i, column in enumerate(numbers):
        values[:, i] = to_numbers(table[column["name"]], column, source)
        if (empty := int(values[:, i].isnan().sum())) and not column["missing"]:
            rank_zero_warn(
                f"{source}: {column['name']}, which the training always has, is missing in rows: "
                f"{empty}. Its mean is taken"
            )
    codes = torch.empty(len(table), len(categories), dtype=torch.long)
    for i, column in enumerate(categories):
        array = table[column["name"]]
        codes[:, i] = places_of(array, column["categories"]) + 1
        unknown = np.flatnonzero((codes[:, i] == 0).numpy() & array.is_valid().to_numpy())
        if len(unknown):
            first = int(unknown[0])
            rank_zero_warn(
                f"{source}: {len(unknown)} values of {column['name']} are unknown to the training; "
                f"the first is {array[first]} in row "
                f"{1 + (first if row_numbers is None else row_numbers[first])}"
            )
    return values, codes


def to_numbers(array: Any, column: Column, source: str) -> Tensor:
    """A column (N,) as float32: days since 1970 of a date, the hour of a time.

    Raises:
        UserError: its values are of another kind than those of the training.
    """
    name, array = column["name"], as_days(array) if column["kind"] == "date" else array
    kind = kind_of(array)
    if array.null_count == len(array):
        return torch.full((len(array),), torch.nan)
    if kind != column["kind"] and {kind, column["kind"]} != {"number", "boolean"}:
        row = arrow.index(array.is_valid(), True).as_py()
        raise UserError(
            f"{source}, row {row + 1}: {name} is {array[row]}, and in the training a "
            f"{column['kind']}."
        )
    if kind == "date":
        milliseconds = array.cast(pyarrow.timestamp("ms"), safe=False).cast(pyarrow.int64())
        array = arrow.divide(milliseconds.cast(pyarrow.float64()), DAY)
    elif kind == "time":
        milliseconds = array.cast(pyarrow.time64("us"), safe=False).cast(pyarrow.int64())
        array = arrow.divide(milliseconds.cast(pyarrow.float64()), 3.6e9)
    return torch.from_numpy(to_floats(array, f"{source}: {name}").astype(np.float32))
