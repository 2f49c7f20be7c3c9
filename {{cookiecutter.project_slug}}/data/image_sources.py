"""Images to predict, whatever they come in."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from data.image_search import find_images
from engine.errors import UserError


def open_images(source: Any, channels: int) -> list[str | Image.Image]:
    """The images of a file, in and below a folder, of Pillow, of integers in an array (H, W),
    (H, W, C), (N, H, W, C) or (N, C, H, W), where grey ones need no C; or of a list of all these."""
    if channels not in (1, 3):
        raise UserError(
            f"Images of {channels} channels: those that are read have 1 or 3. Give the data module a "
            "`read` of its own"
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
            raise UserError(f"Images of {pixels.dtype} up to {pixels.max()}: give them as uint16.")
        pixels = pixels.astype(np.uint8)
    colors = (1, 3, 4)
    if pixels.ndim > 2 and pixels.shape[-3] == channels and pixels.shape[-1] not in colors:
        if channels > 1 or pixels.ndim == 4:
            pixels = np.moveaxis(pixels, -3, -1)
    if pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[-1] in colors:
        pixels = pixels[None]
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 3 and (pixels.ndim != 4 or pixels.shape[-1] not in colors):
        raise UserError(f"An array of shape {pixels.shape} is no images: give (N, H, W, C).")
    return [Image.fromarray(np.ascontiguousarray(image)) for image in pixels]
