"""Reads text files as numbers."""

import codecs
import os
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from engine.errors import UserError
from engine.files import files_below

MOST = 2**30  # bytes that are decoded: characters take four times as much memory


def find_files(root: Path, pattern: str = "*") -> list[Path]:
    """The file, or those in and below the folder; each once, however many links it has.

    Raises:
        UserError: there is none.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UserError(f"There is no {root}: data_dir or predict_dir is a text file or a folder.")
    wanted = pattern.removeprefix("**/")
    names = [p for p in files_below(root) if fnmatch(os.path.relpath(p, root), wanted)]
    if not names:
        raise UserError(f"There is no file {pattern} in {root}: put UTF-8 text files there.")
    return [Path(name) for name in {os.path.realpath(name): name for name in names}.values()]


def read_bytes(paths: list[Path]) -> Tensor:
    """The bytes (T,) of some files, one after the other. A single file is memory-mapped: it may be
    larger than memory, and only what is needed is read."""
    parts = [read_file(path, mapped=len(paths) == 1) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        try:  # the last character may be cut
            codecs.getincrementaldecoder("utf8")().decode(part[: 2**20].numpy().tobytes())
        except UnicodeDecodeError:
            rank_zero_warn(f"{path} is not UTF-8, as prompts and what is written are: convert it.")
    text = parts[0] if len(parts) == 1 else torch.cat(parts)
    if not len(text):
        raise without_text(paths)
    return text


def without_text(paths: list[Path]) -> UserError:
    return UserError(f"{paths[0]} is empty." if len(paths) == 1 else "All files are empty.")


def read_file(path: Path, mapped: bool = False) -> Tensor:
    """The bytes (T,) of a file, without a byte-order mark.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        size = path.stat().st_size
        if mapped and size:
            text = torch.from_numpy(np.memmap(path, np.uint8, mode="c"))
        else:
            text = torch.from_numpy(np.fromfile(path, np.uint8))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    start = text[: 2**20].numpy().tobytes()
    if b"\0" in start:
        raise UserError(
            f"{path} has zero bytes, as no text in UTF-8 has: convert it to UTF-8, or take it "
            "out of the folder (--data.pattern chooses files by name)."
        )
    return text[len(codecs.BOM_UTF8) :] if start.startswith(codecs.BOM_UTF8) else text


def read_characters(paths: list[Path]) -> Tensor:
    """The code points (T,), int32, of some files, one after the other.

    Raises:
        UserError: one is not UTF-8, or they are too large.
    """
    # A link to nothing has no size: `decode` refuses it.
    if (size := sum(os.path.getsize(path) for path in paths if os.path.exists(path))) > MOST:
        raise UserError(
            f"unit is character, and the text has {size / 1e9:.1f} GB, which have to fit into "
            "memory four times: take --data.unit byte, which maps a file."
        )
    codes = [np.frombuffer(decode(path).encode("utf-32-le"), np.int32) for path in paths]
    if not any(map(len, codes)):
        raise without_text(paths)
    return torch.from_numpy(np.concatenate(codes))


def read_lines(path: Path) -> list[str]:
    """The lines of a file that are not empty."""
    lines = [line for line in decode(path).splitlines() if line]
    if not lines:
        raise UserError(f"{path} is empty.")
    return lines


def decode(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is not UTF-8.
    """
    raw = read_file(path).numpy().tobytes()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: the byte {raw[error.start]:#04x} is not UTF-8. Save the file as "
            "UTF-8, or take --data.unit byte."
        ) from error
