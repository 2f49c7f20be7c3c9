"""Reads CSV and Parquet files, and says what is wrong with them, and where.

pyarrow reads them: it takes any encoding, names the row that has too many fields, and finds the types
over all rows. `benchmarks/tables.py` of the template compares it with polars.
"""

import codecs
import re
from collections.abc import Collection
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from pyarrow import csv, parquet, types

from engine.errors import UserError

LARGEST = float(np.finfo(np.float32).max)
SAMPLE = 2**16  # bytes of a file, to find separator and decimal point
SEPARATORS = ",;\t|"
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
GIVE_ENCODING = "Give the encoding of the file, such as --data.encoding cp1252."
# What is meant as a number or a date, whether it can be read as one or not.
NUMBER = r"^\s*[-+]?[$€£]?\s?[.,]?\d[\d.,']*([eE][-+]?\d+)?\s?[%$€£]?\s*$"
DATE = r"^\s*(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})([ T].*)?$"


def as_table(source: Any, **reading: Any) -> pyarrow.Table | None:
    """A table of a file, of a data frame of pandas, Polars or Arrow, or of a list of dicts, which are
    read as the CSV file that they make; of anything else None. `read_csv` has the options."""
    if isinstance(source, str | Path):
        return read_table(source, **reading)
    place = "The table"
    try:
        if isinstance(source, list) and source and all(isinstance(row, dict) for row in source):
            names = dict.fromkeys(name for row in source for name in row)
            columns = {name: [row.get(name) for row in source] for name in names}
            source = pyarrow.table({name: [*map(as_cell, columns[name])] for name in names})
        elif hasattr(source, "to_arrow"):
            source = source.to_arrow()
        elif hasattr(source, "columns") and not isinstance(source, pyarrow.Table):
            index = source.index.name is not None
            source = pyarrow.Table.from_pandas(source, preserve_index=index)
        if not isinstance(source, pyarrow.Table):
            return None
        csv.write_csv(source, file := BytesIO())
        reading |= {"separator": ",", "decimal": ".", "encoding": "utf8"}
        return checked(read_csv(pyarrow.py_buffer(file.getvalue()), place, **reading), place)
    except pyarrow.ArrowException as error:
        raise UserError(f"{place}: {error}") from error


def as_cell(value: Any) -> str | None:
    return None if value is None else str(value)


def read_table(path: str | Path, **reading: Any) -> pyarrow.Table:
    """A table of a .csv (or .tsv, .txt, also .gz) or .parquet file; `read_csv` has the options.

    Raises:
        UserError: what is wrong with the file, with its row and column.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"There is no file {path}. Give a .csv or .parquet file.")
    try:
        if path.suffix in (".parquet", ".pq"):
            return checked(parquet.read_table(path), str(path))
        return checked(read_csv(str(path), str(path), **reading), str(path))
    except UnicodeError as error:
        raise UserError(f"{path}: {error}. {GIVE_ENCODING}") from error
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: {str(error).strip()}") from error


def checked(table: pyarrow.Table, place: str) -> pyarrow.Table:
    """The table, if it has rows, each column a name of its own, and float32 holds the numbers."""
    names = [name.strip() for name in table.column_names]
    if "" in names:
        rank_zero_info(f"{place}: left out {names.count('')} columns without a name")
        table = table.select([i for i, name in enumerate(names) if name])
        names = [*filter(None, names)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{place} has several columns with the name {', '.join(twice)}.")
    if not len(table):
        raise UserError(f"{place} has no rows.")
    for name, column in zip(names, table.columns, strict=True):
        if types.is_floating(column.type):
            lowest, highest = arrow.min_max(column).values()
            if max(-(lowest.as_py() or 0), highest.as_py() or 0) > LARGEST:
                row = arrow.index(arrow.greater(arrow.abs(column), LARGEST), True).as_py()
                number = column[row].as_py()
                raise UserError(
                    f"{place}, row {row + 1}: {name} is {number}, infinite in float32; mend it or "
                    "leave it empty."
                )
    return table.rename_columns(names)


def read_csv(
    source: str | pyarrow.Buffer,
    place: str,
    separator: str = "auto",
    decimal: str = "auto",
    encoding: str = "auto",
    missing: Collection[str] = (),
    date_format: str | None = None,
    texts: Collection[str] = (),
) -> pyarrow.Table:
    """A table of a file, given by its path or its bytes. `texts` are columns that are texts whatever they
    look like; what the other options mean is said where the data module has them."""
    with pyarrow.input_stream(source) as file:
        head = file.read(SAMPLE)
    if not head.strip():
        raise UserError(f"{place} is empty.")
    used = encoding
    if encoding == "auto":
        used = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf8")
        if used == "utf8" and b"\0" in head:
            raise UserError(f"{place} is no text in UTF-8. {GIVE_ENCODING}")
    sample = head.decode(used, errors="ignore").removeprefix("\ufeff")
    found = separator if separator != "auto" else find_separator(sample)
    point = decimal if decimal != "auto" else find_decimal(sample, found)
    if (found, point) != (",", ".") and "auto" in (separator, decimal):
        rank_zero_info(f"{place}: separator {found!r}, decimal {point!r}")
    converting = csv.ConvertOptions(
        strings_can_be_null=True,
        null_values=[*csv.ConvertOptions().null_values, "None", *missing],
        decimal_point=point,
        timestamp_parsers=[*filter(None, [date_format]), csv.ISO8601],
        column_types=dict.fromkeys(texts, pyarrow.string()),
    )

    def parse(encoding: str, carefully: bool = False) -> pyarrow.Table:
        # Carefully: in one thread, which knows the number of the row, and whatever quotes hold.
        reading = csv.ReadOptions(encoding=encoding, use_threads=not carefully)
        quoted = carefully or '"' in sample
        parsing = csv.ParseOptions(delimiter=found, newlines_in_values=quoted)
        with pyarrow.input_stream(source) as file:
            return csv.read_csv(file, reading, parsing, converting)

    try:
        table = parse(used)
        if any(types.is_binary(column.type) for column in table.columns):
            raise UnicodeError
    except (UnicodeError, pyarrow.ArrowInvalid) as error:
        if encoding == "auto" and (isinstance(error, UnicodeError) or "UTF8" in str(error)):
            rank_zero_info(f"{place} is not in UTF-8: it is read as Windows-1252 (--data.encoding)")
            used = "cp1252"
        table = parse(used, carefully=True)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name not in texts and types.is_string(column.type):
            refuse_mixed(column, place, name, point, date_format)
    return table


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


def refuse_mixed(
    texts: pyarrow.ChunkedArray, place: str, name: str, decimal: str, date_format: str | None
) -> None:
    """Raises a UserError for a column of numbers or dates but for some values, or written otherwise."""

    def read_date(text: str) -> date:
        text = text.strip()
        return (
            datetime.strptime(text, date_format) if date_format else date.fromisoformat(text[:10])
        )

    kinds: dict[str, Any] = {
        "dates": (DATE, read_date, "date_format '%d.%m.%Y'"),
        "numbers": (NUMBER, lambda text: float(text.replace(decimal, ".")), "missing '[{}]'"),
    }
    for kind, (pattern, read, setting) in kinds.items():
        meant = arrow.sum(arrow.match_substring_regex(texts, pattern)).as_py() or 0
        if 2 * meant < len(texts) - texts.null_count:
            continue
        for row, text in enumerate(texts.to_pylist(), start=1):
            try:
                _ = text is None or read(text)
            except ValueError:
                raise UserError(
                    f"{place}, row {row}: {name} is {text!r}, and most others are {kind}. Mend it, or say "
                    f"what it is: --data.{setting.format(text)}, or --data.categorical '[{name}]' in a "
                    "table."
                ) from None


def to_floats(values: pyarrow.ChunkedArray, place: str) -> np.ndarray:
    """Numbers (N,), float64 with NaN for what is missing; says where float32 would not do."""
    floats = values.cast(pyarrow.float64(), safe=False).to_numpy()
    known = floats[~np.isnan(floats)]
    if len(known) and np.abs(known - known.astype(np.float32)).max() > 1e-3 * known.std() > 0:
        rank_zero_warn(
            f"{place} differs in digits that float32 does not hold; subtract what is the same in all "
            "rows"
        )
    return floats
