"""The images of a folder, read once: all of them as one memory-mapped file, and what failed."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset

from data.image_files import ImageFiles
from data.image_range import read_through
from engine.errors import UserError

VERSION = 2  # of the way in which images are read: another one makes caches useless


class Attempts(Dataset):
    """The images of `files`; zeros, and by index the error, of those that cannot be read."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, dict[int, str]]:
        images = torch.zeros(len(indices), *self.files.image_shape, dtype=torch.uint8)
        errors = {}
        for place, index in enumerate(indices):
            try:
                images[place] = self.files.attempt(index)
            except ValueError as error:
                errors[index] = str(error)
        return images, errors


def read_all(files: ImageFiles, num_workers: int, path: Path | None = None) -> dict[int, str]:
    """Reads all files, and writes them to `path`, if given, as uint8 (N, C, H, W).

    Returns:
        The errors of files that cannot be read, by index; their images are zeros.
    """
    all_errors: dict[int, str] = {}
    with open(path or os.devnull, "wb") as file:
        for images, errors in read_through(Attempts(files), num_workers):
            file.write(images.numpy())
            all_errors |= errors
    return all_errors


def read_once(
    files: ImageFiles, folder: Path, num_workers: int, keep_images: bool
) -> tuple[Tensor | None, dict[int, str]]:
    """The result of `read_all`, kept in `folder` until a file changes.

    Processes may do so at the same time: each writes files of its own, and renames them at the end.

    Returns:
        The memory-mapped images if `keep_images`, and the errors of unreadable files, by index.
    """
    prefix = f".images-{files.image_shape[-1]}px-"
    stem = folder / (prefix + fingerprint(files, folder))
    images, errors = stem.with_suffix(".uint8"), stem.with_suffix(".json")
    if not errors.is_file() or (keep_images and not images.is_file()):
        if not os.access(folder, os.W_OK):
            if keep_images:
                raise UserError(f"{folder} is read-only: cache: true needs to keep a file there.")
            return None, read_all(files, num_workers)
        rank_zero_info(f"Reading {len(files)} images once; the result is kept in {folder}.")
        with TemporaryDirectory(dir=folder, prefix=".reading-") as own:
            new_images, new_errors = Path(own, "images"), Path(own, "errors")
            found = read_all(files, num_workers, new_images if keep_images else None)
            new_errors.write_text(json.dumps(found, indent=1), encoding="utf-8")
            for old in folder.glob(f"{prefix}*"):
                if old.stem != stem.name:  # another process may be reading these
                    old.unlink(missing_ok=True)
            if keep_images:
                new_images.replace(images)
            new_errors.replace(errors)
    reasons = {int(i): why for i, why in json.loads(errors.read_text(encoding="utf-8")).items()}
    if not keep_images:
        return None, reasons
    shape = len(files), *files.image_shape
    return torch.from_numpy(np.memmap(images, np.uint8, "c", shape=shape)), reasons


def fingerprint(files: ImageFiles, folder: Path) -> str:
    """Changes with the names, sizes and times of the files, and with the shape of the images."""
    digest = hashlib.sha256(repr((VERSION, files.image_shape, files.value_range)).encode())
    for name in files.names:
        line = f"{os.path.relpath(name, folder)} "
        with suppress(OSError):  # a link that leads nowhere
            status = os.stat(name)
            line += f"{status.st_size} {status.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
