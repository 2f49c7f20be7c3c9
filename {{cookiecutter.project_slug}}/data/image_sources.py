"""Finds images: of a file, a folder, an array, or a list of these."""

import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor

from engine.errors import UserError
from engine.files import files_below

# Formats that Pillow knows, but that hold no pixels or need another program.
NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@cache
def extensions() -> set[str]:
    """The file extensions that the installed Pillow, with its plugins, reads."""
    kinds = Image.registered_extensions().items()
    return {ending for ending, kind in kinds if kind in Image.OPEN and kind not in NO_IMAGES}


def find_images(folder: str | Path, others: Counter[str] | None = None) -> list[str]:
    """Paths of all images in and below a folder, sorted, without hidden files and folders. The
    extensions of all other files are counted in `others`; without it, they are printed."""
    counts: Counter[str] = Counter() if others is None else others
    found = []
    for path in files_below(Path(folder).expanduser()):
        ending = os.path.splitext(path)[1].lower()
        if ending in extensions():
            found.append(path)
        else:
            counts[ending or "no ending"] += 1
    if others is None:
        tell_others(folder, counts, len(found))
    return found


def tell_others(folder: str | Path, others: Counter[str], found: int) -> None:
    """Says which files of a folder are left out, since Pillow does not read them.

    Raises:
        UserError: there are only such files.
    """
    counts = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
    if not found:
        has = f"only files that Pillow does not read: {counts}" if counts else "no files"
        raise UserError(f"There are no images in {folder}: it has {has}.")
    if counts:
        rank_zero_info(f"Left out of {folder}, since Pillow does not read it: {counts}")


def open_images(source: Any, channels: int) -> list[str | Image.Image]:
    """The images of a file, of a folder and those below it, of Pillow, or of an array or tensor of
    integers (H, W), (H, W, C), (N, H, W), (N, H, W, C) or (N, C, H, W); or of a list of these."""
    if channels not in (1, 3):
        raise UserError(
            f"Images of {channels} channels: those that are read have 1 or 3. Give the data module "
            "a `read` of its own"
        )
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.exists():
            raise UserError(f"There is no file or folder {path}.")
        return [str(path)] if path.is_file() else [*find_images(path)]
    if isinstance(source, Image.Image):
        return [source]
    if isinstance(source, list | tuple):
        return [image for one in source for image in open_images(one, channels)]
    pixels = np.asarray(source.cpu() if isinstance(source, Tensor) else source)
    if pixels.dtype.kind not in "iu":
        raise UserError(f"Images of {pixels.dtype}: give integers from 0 to 255, as files do.")
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.size and (pixels.min() < 0 or pixels.max() > 255):
            values = f"{pixels.dtype} from {pixels.min()} to {pixels.max()}"
            raise UserError(f"Images of {values}: give 0 to 255, or grey ones as uint16.")
        pixels = pixels.astype(np.uint8)
    colors = (1, 3, 4)
    if pixels.ndim > 2 and pixels.shape[-3] == channels and pixels.shape[-1] not in colors:
        if channels > 1 or pixels.ndim == 4:
            pixels = np.moveaxis(pixels, -3, -1)  # channels come last
    if pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[-1] in colors:
        pixels = pixels[None]  # a single image
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]  # grey images (N, H, W)
    if pixels.ndim != 3 and (pixels.ndim != 4 or pixels.shape[-1] not in colors):
        raise UserError(f"An array of shape {pixels.shape} is no images: give (N, H, W, C).")
    if pixels.ndim == 4 and pixels.dtype != np.uint8:
        raise UserError(f"Images in colour of {pixels.dtype}: give them as uint8, from 0 to 255.")
    return [Image.fromarray(np.ascontiguousarray(image)) for image in pixels]
