"""Finds the files of a folder, and writes what may be missing."""

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn

from engine.errors import UserError

SYSTEM_FOLDERS = (".", "__MACOSX", "@eaDir")  # hidden, of macOS, of Synology: with small copies


def relative(path: str | Path) -> str:
    """The path from here, if it lies below; else the whole path."""
    whole, here = Path(path).absolute(), Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def files_below(folder: Path) -> list[str]:
    """Paths of all files in and below a folder, sorted, without hidden ones and those of systems.
    Links are followed, but not into a folder that they lie in themselves."""
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    paths: list[str] = []
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        shown = (name for name in folders if not name.startswith(SYSTEM_FOLDERS))
        folders[:] = [n for n in shown if not real.is_relative_to(Path(here, n).resolve())]
        paths += [os.path.join(here, name) for name in files if not name.startswith(".")]
    return sorted(paths)


def write_rows(path: Path, rows: Iterable[Iterable]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@contextmanager
def written_whole(path: Path, ending: str = "") -> Iterator[Path]:
    """A file beside `path` that takes its place in the end: what fails leaves the old one whole."""
    temporary = path.with_name(f".part.{path.name}{ending}")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch may hide the system's reason behind its own.
        reason = error if isinstance(error, OSError) else error.__context__
        if not isinstance(reason, OSError) or reason.filename not in (None, str(temporary)):
            raise
        kept = "; the one before is whole" * path.exists()
        raise UserError(f"{path} cannot be written: {reason.strerror or reason}{kept}") from error
    finally:
        with suppress(OSError):  # as where nothing can be written
            temporary.unlink()


@contextmanager
def may_be_missing(path: Path) -> Iterator[None]:
    """For a drawing and the like: a full disk, or lack of rights, costs that file, not the run."""
    try:
        yield
    except OSError as error:
        rank_zero_warn(f"No {path}: {error.strerror or error}")
