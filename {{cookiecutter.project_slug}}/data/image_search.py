"""Finds the images of a folder: what the installed Pillow reads."""

import os
from collections import Counter
from functools import cache
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from engine.errors import UserError
from engine.files import files_below

# Formats of Pillow's that hold no pixels, or need another program.
NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@cache
def extensions() -> set[str]:
    """The endings of what the installed Pillow, with its plugins, reads."""
    kinds = Image.registered_extensions().items()
    return {ending for ending, kind in kinds if kind in Image.OPEN and kind not in NO_IMAGES}


def find_images(folder: str | Path, others: Counter[str] | None = None) -> list[str]:
    """Paths of all images in and below a folder, sorted; hidden files and folders are left out. Adds
    the endings of the files that are no images to `others`; without it, tells them."""
    left_out: Counter[str] = Counter()
    found = []
    for path in files_below(Path(folder).expanduser()):
        ending = os.path.splitext(path)[1].lower()
        if ending in extensions():
            found.append(path)
        else:
            left_out[ending or "no ending"] += 1
    if others is None:
        tell_others(folder, left_out, len(found))
    else:
        others += left_out
    return found


def tell_others(folder: str | Path, others: Counter[str], found: int) -> None:
    """Says which files of a folder are left out, since Pillow does not read them.

    Raises:
        UserError: no others were found.
    """
    counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
    if not found:
        has = f"only files that Pillow does not read: {counts}" if counts else "no files"
        raise UserError(f"There are no images in {folder}: it has {has}.")
    if counts:
        rank_zero_info(f"Left out of {folder}, since Pillow does not read it: {counts}")
