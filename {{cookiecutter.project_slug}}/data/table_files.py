"""Reads tables from CSV and Parquet files, and says what is wrong with them, and where.

pyarrow reads them: it takes any encoding, names the row that has too many fields, and finds the types
over all rows. `benchmarks/tables.py` of the template compares it with polars.
"""

import codecs
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute as arrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from pyarrow import csv, parquet

from engine.errors import UserError

SAMPLE = 2**16  # bytes of a file, to find separator and decimal point
SEPARATORS = ",;\t|"
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
GIVE_ENCODING = "Give the encoding of the file, such as --data.encoding cp1252."
NUMBER = r"^\s*[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?\s*$"


def as_table(source: Any, **reading: Any) -> pyarrow.Table:
    """A table of a file, a dict of columns, a list of dicts, or a data frame of pandas or polars."""
    if isinstance(source, str | Path):
        return read_table(source, **reading)
    if isinstance(source, dict):
        return pyarrow.table(source)
    if isinstance(source, list):
        return pyarrow.Table.from_pylist(source)
    if hasattr(source, "to_arrow"):
        return source.to_arrow()
    if not hasattr(source, "columns"):
        raise UserError("An array has no names of columns: give a data frame or a list of dicts.")
    return pyarrow.Table.from_pandas(source, preserve_index=False)


def read_table(
    path: str | Path,
    separator: str = "auto",
    decimal: str = "auto",
    encoding: str = "auto",
    missing: Collection[str] = (),
    date_format: str | None = None,
    texts: Collection[str] = (),
) -> pyarrow.Table:
    """A table of a .csv (or .tsv, .txt, also .gz) or .parquet file.

    Args:
        path: of the file.
        separator: between the fields.
        decimal: the decimal point or comma.
        encoding: of the text; auto: UTF-8, or what a byte-order mark says.
        missing: what stands for a missing value, beside nothing, NA, NaN, null and the like.
        date_format: of dates that are not as in ISO 8601, such as %d.%m.%Y.
        texts: columns that are texts whatever they look like.

    Raises:
        UserError: what is wrong with the file, with its row and column.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {path}. Give a .csv or .parquet file.")
    try:
        if path.suffix in (".parquet", ".pq"):
            table = parquet.read_table(path)
        else:
            table = read_csv(path, separator, decimal, encoding, missing, date_format, texts)
    except UnicodeError as error:
        raise UserError(f"{path}: {error}. {GIVE_ENCODING}") from error
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: {str(error).strip()}") from error
    if not len(table):
        raise UserError(f"{path} has no rows.")
    refuse_twins(table, path)
    names = table.column_names
    if "" in names:
        table = table.rename_columns([name or f"column {i}" for i, name in enumerate(names)])
    return table


def refuse_twins(table: pyarrow.Table, path: Path) -> None:
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{path} has several columns with the name {', '.join(twice)}.")


def read_csv(
    path: Path,
    separator: str,
    decimal: str,
    encoding: str,
    missing: Collection[str],
    date_format: str | None,
    texts: Collection[str],
) -> pyarrow.Table:
    with pyarrow.input_stream(str(path)) as file:
        head = file.read(SAMPLE)
    if not head.strip():
        raise UserError(f"{path} is empty.")
    if encoding == "auto":
        encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf8")
    sample = head.decode(encoding, errors="ignore").removeprefix("\ufeff")
    found = separator if separator != "auto" else find_separator(sample)
    point = decimal if decimal != "auto" else find_decimal(sample, found)
    if (found, point) != (",", ".") and "auto" in (separator, decimal):
        rank_zero_info(f"{path}: separator {found!r}, decimal {point!r}")
    options = {
        "parse_options": csv.ParseOptions(delimiter=found, newlines_in_values='"' in sample),
        "convert_options": csv.ConvertOptions(
            strings_can_be_null=True,
            null_values=[*csv.ConvertOptions().null_values, "None", *missing],
            decimal_point=point,
            timestamp_parsers=[*filter(None, [date_format]), csv.ISO8601],
            column_types=dict.fromkeys(texts, pyarrow.string()),
        ),
    }
    try:
        table = csv.read_csv(path, csv.ReadOptions(encoding=encoding), **options)
    except pyarrow.ArrowInvalid:  # once more, since one thread knows the number of the row
        slow = csv.ReadOptions(encoding=encoding, use_threads=False)
        table = csv.read_csv(path, slow, **options)
    refuse_twins(table, path)
    for name in table.column_names:
        if pyarrow.types.is_binary(table[name].type):
            row = next(i for i, value in enumerate(table[name]) if not is_text(value.as_py()))
            raise UserError(f"{path}, row {row + 1}: {name} is no {encoding}. {GIVE_ENCODING}")
        if name not in texts and pyarrow.types.is_string(table[name].type):
            refuse_mixed(table[name], f"{path}, row", name)
    return table


def is_text(value: bytes | None) -> bool:
    try:
        return value is None or bool(value.decode()) or True
    except UnicodeDecodeError:
        return False


def find_separator(sample: str) -> str:
    """What occurs most in the first line, outside of quotes."""
    [line] = re.sub(r'"[^"]*"', "", sample).splitlines()[:1] or [""]
    return max(SEPARATORS, key=line.count)


def find_decimal(sample: str, separator: str) -> str:
    """A comma, if fields are numbers with a comma and none is one with a point."""
    if separator == ",":
        return "."
    fields = [field.strip('" \r\n') for field in re.split(re.escape(separator) + "|\n", sample)]
    commas = any(re.fullmatch(r"[-+]?\d*,\d+", field) for field in fields)
    points = any(re.fullmatch(r"[-+]?\d*\.\d+", field) for field in fields)
    return "," if commas and not points else "."


def refuse_mixed(values: pyarrow.ChunkedArray, place: str, name: str) -> None:
    """Raises a UserError for a column of numbers but for a few values."""
    numeric = arrow.match_substring_regex(values, NUMBER)
    count = arrow.sum(numeric).as_py() or 0
    if count >= 0.9 * (len(values) - values.null_count) > 0 and count:
        row = arrow.index(numeric, False).as_py()
        if row >= 0:
            raise UserError(
                f"{place} {row + 1}: {name} is {values[row].as_py()!r}, and nearly all others are "
                f"numbers. Mend it, or say what it is: --data.missing '[{values[row]}]' or "
                f"--data.categorical '[{name}]'"
            )
