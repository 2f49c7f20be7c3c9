"""Reads CSV and Parquet files, and says what is wrong with them, and where.

pyarrow reads them: it takes any encoding, names the row that has too many fields, and finds the
types over all rows. `benchmarks/tables.py` of the template compares it with polars.
"""

import codecs
import re
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from pyarrow import csv, parquet, types

from engine.errors import UserError
from engine.table_checks import checked, refuse_mixed, tell_codes

SAMPLE = 2**16  # bytes of a file, to find separator and decimal point
BLOCK = 2**24  # bytes that are read at once: a row fits in, of a hundred thousand columns as well
SEPARATORS = ",;\t|"
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Of `read_csv`: what a data module has as arguments of the same names.
OPTIONS = ("separator", "decimal", "encoding", "missing", "date_format")
GIVE_ENCODING = "Give the encoding of the file, such as --data.encoding cp1252."


def as_table(source: Any, place: str = "The table", **reading: Any) -> pyarrow.Table | None:
    """A table of a file, of a data frame of pandas, Polars or Arrow, or of a list of dicts, which
    are read as the CSV file that they make; of anything else None. `read_csv` has the options."""
    if isinstance(source, str | Path):
        return read_table(source, **reading)
    try:
        if isinstance(source, list) and source and all(isinstance(row, dict) for row in source):
            names = dict.fromkeys(name for row in source for name in row)
            columns = {name: [row.get(name) for row in source] for name in names}
            source = pyarrow.table({name: [*map(as_cell, columns[name])] for name in names})
        elif hasattr(source, "to_arrow"):  # of Polars
            source = source.to_arrow()
        elif hasattr(source, "iloc") and hasattr(source, "columns"):  # of pandas
            index = source.index.name is not None
            source = pyarrow.Table.from_pandas(source, preserve_index=index)
        elif isinstance(source, pyarrow.RecordBatch | pyarrow.RecordBatchReader):
            source = pyarrow.table(source)
        if not isinstance(source, pyarrow.Table):
            return None
        flat = [field.name for field in source.schema if not types.is_nested(field.type)]
        csv.write_csv(source.select(flat), file := BytesIO())
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
        raise UserError(
            f"There is no file {path}: data_path, test_path or predict_dir is .csv or .parquet."
        )
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return checked(parquet.ParquetFile(path).read(), str(path))
        return checked(read_csv(str(path), str(path), **reading), str(path))
    except UnicodeError as error:
        raise UserError(f"{path}: {error}. {GIVE_ENCODING}") from error
    except pyarrow.ArrowException as error:
        ragged = (
            " The first row names the columns, and each has as many fields: remove what stands "
            "above or below the table."
        ) * ("Expected" in str(error))
        raise UserError(f"{path}: {str(error).strip()}.{ragged}") from error


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
    """A table of a file, given by its path or its bytes. `texts` are columns that are texts
    whatever they look like; what the other options mean is said where the data module has them."""
    with pyarrow.input_stream(source) as file:
        head = file.read(SAMPLE)
    if not head.strip():
        raise UserError(f"{place} is empty.")
    used = encoding
    if encoding == "auto":
        used = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf8")
        if used == "utf8" and b"\0" in head:
            raise UserError(
                f"{place} is no text in UTF-8, nor Parquet: save it as CSV. {GIVE_ENCODING}"
            )
    sample = head.decode(used, errors="ignore").removeprefix("\ufeff")
    found = separator if separator != "auto" else find_separator(sample)
    point = decimal if decimal != "auto" else find_decimal(sample, found, place)
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
        reading = csv.ReadOptions(encoding=encoding, use_threads=not carefully, block_size=BLOCK)
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
    tell_codes(table, sample, found, place)
    return table


def find_separator(sample: str) -> str:
    """What occurs most in the first line, outside of quotes."""
    [line] = re.sub(r'"[^"]*"', "", sample).splitlines()[:1] or [""]
    found = max(SEPARATORS, key=line.count)
    return found if found in line or " " not in line else " "


def find_decimal(sample: str, separator: str, place: str) -> str:
    """A comma, if fields are numbers with a comma and none is one with a point."""
    if separator == ",":
        return "."
    fields = [field.strip('" \r\n') for field in re.split(re.escape(separator) + "|\n", sample)]
    points, commas = (
        [field for field in fields if re.fullmatch(rf"[-+]?\d*[{mark}]\d+", field)] for mark in ".,"
    )
    found = points or commas
    if found and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}[.,]\d{3}", field) for field in found):
        mark = "point" if points else "comma"
        rank_zero_warn(
            f"{place}: {found[0]} is read with a decimal {mark}; leave it out of thousands."
        )
    return "," if commas and not points else "."
