"""Reads text from the columns of a CSV or Parquet file, some rows at a time."""

import csv
from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from engine.errors import UserError

CHUNK = 100_000  # rows
BLOCK = 2**20  # bytes


class File:
    """A CSV file, in UTF-8, UTF-16 or Windows-1252, with cells between commas, semicolons, tabs or
    bars; or, by its ending `.parquet`, a Parquet file (needs pyarrow).

    Raises:
        UserError: there is no such file, or it has no header; or, when it is read, a line has more or
            fewer cells than the header.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f"There is no file {path}.")
        self.is_parquet = self.path.suffix == ".parquet"
        if self.is_parquet:
            from pyarrow.parquet import read_schema

            self.names = list(read_schema(self.path).names)
        else:
            self.encoding = encoding_of(self.path)
            with self.path.open(encoding=self.encoding, newline="") as file:
                header = file.readline()
            self.delimiter = max(",;\t|", key=header.count)
            self.names = [name.strip() for name in next(self.lines(), [])]
        if not any(self.names):
            raise UserError(f"{path} is empty.")
        if twice := [name for name, number in Counter(self.names).items() if number > 1]:
            raise UserError(f"{path} has several columns with the name {twice[0]!r}.")

    def lines(self) -> Iterator[list[str]]:
        with self.path.open(encoding=self.encoding, newline="") as file:
            yield from csv.reader(file, delimiter=self.delimiter)

    def chunks(self, names: list[str]) -> Iterator[tuple[list[int], dict[str, list[str]]]]:
        """The lines of some rows, and the text of their columns."""
        rows = self.parquet_rows(names) if self.is_parquet else self.csv_rows(names)
        while chunk := list(islice(rows, CHUNK)):
            numbers, *columns = zip(*chunk, strict=True)
            yield list(numbers), dict(zip(names, map(list, columns), strict=True))

    def csv_rows(self, names: list[str]) -> Iterator[tuple]:
        places = [self.names.index(name) for name in names]
        with self.path.open(encoding=self.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            for cells in reader:
                if len(cells) == len(self.names):
                    yield reader.line_num, *(cells[place] for place in places)
                elif any(cells):
                    raise UserError(
                        f"{self.path}, line {reader.line_num}: {len(cells)} cells, and the header has "
                        f"{len(self.names)}."
                    )

    def parquet_rows(self, names: list[str]) -> Iterator[tuple]:
        from pyarrow import string
        from pyarrow.parquet import ParquetFile

        first = 1
        for batch in ParquetFile(self.path).iter_batches(CHUNK, columns=names):
            columns: Any = [batch[name].cast(string()).to_pylist() for name in names]
            texts = [[text or "" for text in column] for column in columns]
            yield from zip(range(first, first + len(batch)), *texts, strict=True)
            first += len(batch)


def encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
        file.seek(0)
        decoder = getincrementaldecoder("utf-8")()
        try:
            while block := file.read(BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            rank_zero_info(f"{path} is not in UTF-8: it is read as Windows-1252.")
            return "cp1252"
    return "utf-8-sig"
