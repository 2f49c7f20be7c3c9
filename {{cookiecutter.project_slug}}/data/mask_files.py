"""Images in files, with masks of the same size in others, read a batch at a time."""

import os
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from data.image_files import Batch, ImageFiles, load_upright, read_pixels
from engine.errors import UserError

IGNORED = 255  # in the place of a class: the pixel does not count
ORIENTATION = 0x0112  # EXIF; from 5 on, height and width change places
# The class, or IGNORED, of each value in a mask; a colour is its RGB as one number.
Values = dict[int, int]


class MaskFiles(ImageFiles):
    """Images, resized to H x W without cropping, with their masks: uint8 (B, C, H, W) and the class
    of each pixel, uint8 (B, H, W).

    Args:
        images: paths, or Pillow images.
        masks: paths of the masks; if empty, they are not known, and no pixel counts.
        image_shape: channels, height and width to read them as.
        values: the class of each value in a mask.
        colored: whether these values are colours.
        options: of `ImageFiles`.
    """

    def __init__(
        self,
        images: Sequence[str | Image.Image],
        masks: list[str],
        image_shape: tuple[int, int, int],
        values: Values | None = None,
        colored: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(images, None, image_shape, **options)
        self.masks, self.values, self.colored = masks, values or {}, colored

    def __getitem__(self, index: int) -> Batch:
        channels, *size = self.image_shape
        pixels = read_pixels(self.images[index], channels, max(size), self.value_range)
        image = pixels.permute(2, 0, 1)[None]
        image = functional.interpolate(image, size, mode="bilinear", antialias=True)[0]
        if not self.masks:
            return image, torch.full(size, IGNORED, dtype=torch.uint8)
        mask = read_mask(self.masks[index], self.values, self.colored)
        self.check_size(index, mask)
        mask = functional.interpolate(mask[None, None], size, mode="nearest-exact")
        return image, mask[0, 0]

    def __getitems__(self, indices: list[int]) -> Batch:
        images, masks = zip(*(self[i] for i in indices), strict=True)
        return torch.stack(images), torch.stack(masks)

    def check_size(self, index: int, mask: Tensor) -> None:
        width, height = image_size(self.names[index])
        if mask.shape != (height, width):
            turned = ", turned as its EXIF data says," * (mask.shape == (width, height))
            raise UserError(
                f"{self.names[index]}{turned} has {width} x {height} pixels, but its mask "
                f"{self.masks[index]} has {mask.shape[1]} x {mask.shape[0]}: make them the same "
                "size."
            )


def refuse_alike(names: list[str]) -> None:
    """Raises a UserError if two images differ in their extension alone: masks are found and written
    by the names without it."""
    stems: dict[str, str] = {}
    for name in names:
        if (other := stems.setdefault(stem(name), name)) != name:
            raise UserError(f"{other} and {name} would have the same mask: rename one.")


def stem(path: str) -> str:
    """A path without its extension, in one form of Unicode: accents are stored in several."""
    return unicodedata.normalize("NFC", os.path.splitext(path)[0])


def image_size(path: str) -> tuple[int, int]:
    """Width and height of an image, rotated as its EXIF data says."""
    with Image.open(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) >= 5
        return (image.height, image.width) if turned else image.size


def read_mask(path: str, values: Values, colored: bool) -> Tensor:
    """Reads the class of each pixel, uint8 (H, W).

    Raises:
        UserError: the file cannot be read as an image, or has a value that is no class; names both.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "F":
                raise UserError("its pixels are floats: save whole numbers, as PNG does")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"it has {frames} frames, and a mask is one")
            load_upright(image)
            indexed = image.mode in ("1", "L", "P") or image.mode.startswith("I")
            pixels = np.asarray(image if indexed and not colored else image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{path} cannot be read as a mask: {error}") from error
    if pixels.ndim == 3 and colored:
        pixels = pixels.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    elif pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            colors = np.unique(pixels.reshape(-1, 3), axis=0)[:9].tolist()
            raise UserError(
                f"{path} has colours: give that of each class, as --data.class_values '{colors}'."
            )
        pixels = pixels[..., 0]
    found, places = np.unique(pixels, return_inverse=True)
    unknown = [shown(value, colored) for value in found.tolist() if value not in values]
    if unknown:
        known = [shown(value, colored) for value in values]
        raise UserError(
            f"{path} has the value {unknown[0]} ({len(unknown)} such values in all), which is no "
            f"class: known are {', '.join(known)}. Give the names and values of all classes "
            f"(--data.class_names, --data.class_values), or --data.ignore_value '{unknown[0]}'."
            + " Blends of colours come of edges that are smoothed: save masks without."
            * colored
        )
    classes = np.array([values[value] for value in found.tolist()], dtype=np.uint8)
    return torch.from_numpy(classes[places.reshape(pixels.shape)])


def shown(value: int, colored: bool) -> str:
    return str([value >> 16, value >> 8 & 255, value & 255]) if colored else str(int(value))
