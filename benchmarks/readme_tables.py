"""What the commands that print a table of the README or docs share: its place, and `--write`."""

import argparse
from collections.abc import Callable
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def split(name: str, readme: str) -> tuple[str, str, str]:
    """A text before, in and after the table between `<!-- NAME -->` and `<!-- /NAME -->`."""
    markers = f"<!-- {name} -->", f"<!-- /{name} -->"
    if [readme.count(marker) for marker in markers] != [1, 1]:
        raise ValueError(f"The text must have the lines {' and '.join(markers)} once each")
    before, rest = readme.split(f"{markers[0]}\n")
    inside, after = rest.split(markers[1])
    return f"{before}{markers[0]}\n", inside, f"{markers[1]}{after}"


def print_or_write(
    name: str, table: Callable[[], str], description: str | None, place: Path = README
) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help=f"put it into {place.name}")
    if not parser.parse_args().write:
        print(table(), end="")
        return
    before, _, after = split(name, place.read_text(encoding="utf-8"))
    place.write_text(before + table() + after, encoding="utf-8", newline="\n")
