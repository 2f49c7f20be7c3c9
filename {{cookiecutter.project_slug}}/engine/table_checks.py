"""What is wrong with the columns of a table, and where."""

import json
import re
import shlex
from collections import Counter
from csv import DictReader
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as arrow
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from pyarrow import types

from engine.errors import UserError

# What pandas calls its index, and columns whose name is empty.
UNNAMED = r"|__index_level_\d+__|Unnamed: \d+"
LARGEST = float(np.finfo(np.float32).max)
TEXTS = (pyarrow.string_view(), pyarrow.large_string())
UNUSUAL = {pyarrow.float16(): pyarrow.float32()} | dict.fromkeys(TEXTS, pyarrow.string())
# What is meant as a number or a date, whether it can be read as one or not.
THOUSANDS = "[.,' \u00a0\u202f]"
DIGITS = rf"([.,]\d+|(\d+|\d{{1,3}}({THOUSANDS}\d{{3}})+)([.,]\d*)?)"
MONEY = "[$€£¥]|EUR|USD|GBP|JPY|CHF"
SIGN = "[-+\u2212]"
NUMBER = rf"^\s*{SIGN}?({MONEY})?\s?{DIGITS}([eE][-+]?\d+)?\s?(%|{MONEY})?\s*$"
MONTH = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
DATE = (
    r"^\s*(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}"
    rf"|\d{{1,2}}[-./ ]?{MONTH}[-./ ]?\d{{2,4}})([ T].*)?$"
)


def checked(table: pyarrow.Table, place: str) -> pyarrow.Table:
    """The table, if it has rows, each column a name of its own, and float32 holds the numbers."""
    names = [re.sub(f"^({UNNAMED})$", "", name.strip()) for name in table.column_names]
    if "" in names:
        rank_zero_info(f"{place}: left out {names.count('')} columns without a name")
        table = table.select([i for i, name in enumerate(names) if name])
        names = [*filter(None, names)]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UserError(f"{place} has several columns with the name {', '.join(twice)}.")
    if not len(table):
        raise UserError(f"{place} has no rows.")
    for i, name in enumerate(names):
        column = table.column(i)
        if column.type in UNUSUAL:  # not everything in pyarrow takes them
            column = column.cast(UNUSUAL[column.type])
            table = table.set_column(i, name, column)
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


def refuse_mixed(
    texts: pyarrow.ChunkedArray, place: str, name: str, decimal: str, date_format: str | None
) -> None:
    """Raises a UserError for numbers or dates with others among them, or written otherwise."""

    offsets: set[bool] = set()

    def read_date(text: str) -> None:
        if date_format:
            datetime.strptime(text.strip(), date_format)
            return
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        offsets.add(time.tzinfo is None)
        if len(offsets) > 1:
            raise ValueError

    point = str.maketrans(f"{decimal}.", f".{decimal}")
    kinds: dict[str, Any] = {
        "dates": (DATE, read_date),
        "numbers": (NUMBER, lambda text: float(text.translate(point))),
    }
    for kind, (pattern, read) in kinds.items():
        meant = arrow.sum(arrow.match_substring_regex(texts, pattern)).as_py() or 0
        if not meant or 2 * meant < len(texts) - texts.null_count:
            continue
        rows = [
            (row, text) for row, text in enumerate(texts.to_pylist(), start=1) if text is not None
        ]
        odd = [one for one in rows if not is_read(read, one[1])]
        # If each can be read, pyarrow has still not read them together: they are in no usual form.
        row, text = (odd or rows)[0]
        setting = f"missing {quoted(text)}"
        if kind == "dates" and not 0 < 2 * len(odd) < len(rows):
            setting = f"date_format '{likely_format(text, [one for _, one in rows])}'"
            # Whether the day or the month comes first, some number above 12 says.
            above = any(re.match(r"\s*(1[3-9]|[23]\d)\D", one) for _, one in rows)
            setting += " (or %m before %d?)" * (not above and bool(re.search("%d.%m", setting)))
        others = f"most others are {kind}"
        mend = f"Mend it, or say what it is: --data.{setting}, or"
        if len(offsets) > 1:
            others = "some of the others have an offset from UTC, some none"
            mend = "Give all of them one, or none, or say what it is:"
        if kind == "numbers" and re.match(NUMBER, text):
            mend = f"Write it as 1234{decimal}5 is, or say what it is:"
        raise UserError(
            f"{place}, row {row}: {name} is {text!r}, and {others}. {mend} "
            f"--data.categorical {quoted(name)} in a table."
        )


def quoted(text: str) -> str:
    """A list of this text alone, as an option of a command."""
    return shlex.quote(json.dumps([text], ensure_ascii=False))


def likely_format(text: str, column: list[str]) -> str:
    """How a date is likely to be written, for `date_format`, by itself and all of its column."""
    if re.match(r"\s*\d{4}", text):
        days = "%Y-%m-%d"
    elif months := [found[0] for one in column if (found := re.search(MONTH, one))]:
        days = "%d-%b-%Y" if max(map(len, months)) == 3 else "%d-%B-%Y"
    elif any(re.match(r"\s*\d\d?\D(1[3-9]|[23]\d)\D", one) for one in column):
        days = "%m-%d-%Y"
    else:
        days = "%d-%m-%Y"
    days = days if re.search(r"\d{4}", text) else days.replace("Y", "y")
    between = re.search(r"\d+([-./ ]?)", text)
    days = days.replace("-", between[1]) if between else days
    if not (time := re.search(r"([T ]+)\d+:\d+(:\d+)?( ?[AP]M)?", text)):
        return days
    hour = "%I" if time[3] else "%H"
    zone = re.sub(r"[-+]\d\d:?\d\d", "%z", text[time.end() :].rstrip())
    return f"{days}{time[1]}{hour}:%M" + ":%S" * bool(time[2]) + " %p" * bool(time[3]) + zone


def tell_codes(table: pyarrow.Table, sample: str, separator: str, place: str) -> None:
    """Says which whole numbers have leading zeros, as codes do: those are lost."""
    columns = zip(table.column_names, table.columns, strict=True)
    whole = [name for name, column in columns if types.is_integer(column.type)]
    lines = DictReader(sample.splitlines(), delimiter=separator)
    fields = [(name, line.get(name) or "") for line in lines for name in whole]
    codes = {name: text for name, text in fields if re.match(r"0\d", text)}
    for name, text in codes.items():
        rank_zero_info(
            f"{place}: {name} is read as numbers, though with leading zeros, such as {text}. If it "
            f"holds codes: --data.categorical {quoted(name)}"
        )


def is_read(read: Any, text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def refuse_twice(names: pyarrow.ChunkedArray, place: str) -> None:
    """Raises a UserError if two rows have the same name: which of them is in which split would hang
    on their order."""
    known: dict[Any, int] = {}
    if arrow.count_distinct(names, mode="all").as_py() < len(names):
        for row, name in enumerate(names.to_pylist(), start=1):
            if (first := known.setdefault(name, row)) < row:
                raise UserError(
                    f"{place}, row {row}: {name} names row {first}, too. An id_column has another "
                    "value in each row: mend it, or name the column in leave_out."
                )


def as_days(array: Any) -> Any:
    """Whole numbers as dates, if all are such as 20260131 or, the first day of a month, as 202601;
    others, and no numbers, as they are."""
    lowest, highest = 1900_01_01, 2100_12_31
    if not types.is_integer(array.type) or array.null_count == len(array):
        return array
    first, last = arrow.min_max(array).as_py().values()
    numbers = array
    if lowest <= 100 * first + 1 and 100 * last + 1 <= highest:
        numbers = arrow.add(arrow.multiply(array.cast(pyarrow.int64()), 100), 1)
    elif first < lowest or last > highest:
        return array
    texts = numbers.cast(pyarrow.string())
    days = arrow.strptime(texts, format="%Y%m%d", unit="s", error_is_null=True)
    return days if days.null_count == array.null_count else array


def to_floats(values: pyarrow.ChunkedArray, place: str) -> np.ndarray:
    """Numbers (N,), float64 with NaN for what is missing; says where float32 would not do, and
    where all but a few would look alike to a network, which sees them by their deviation."""
    floats = values.cast(pyarrow.float64(), safe=False).to_numpy()
    known = floats[~np.isnan(floats)]
    deviation = known.std() if len(known) else 0
    if deviation and np.abs(known - known.astype(np.float32)).max() > 1e-3 * deviation:
        rank_zero_warn(
            f"{place} differs in digits that float32 does not hold; subtract what is the same in "
            "all rows"
        )
    some = known[:: 1 + len(known) // 10_000]
    low, middle, high = np.percentile(some, (25, 50, 75)) if len(known) else (0, 0, 0)
    if 0 < 1e4 * (high - low) < deviation:
        far = known[np.abs(known - middle).argmax()]
        rank_zero_warn(
            f"{place} has {far:g}, beside which most others look alike: mend it, or leave it empty"
        )
    return floats
