"""Images in files, read a batch at a time."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from engine.errors import UserError

Batch = tuple[Tensor, Tensor]

Range = list[int]  # lowest and highest value of images of 16 bits


class ImageFiles(Dataset):
    """Images that are read when they are fetched: uint8 (B, C, H, W) and int64 labels (B,).

    Args:
        images: paths, or Pillow images, which are named by their numbers.
        labels: class indices (N,), if there are any.
        image_shape: channels, height and width to read them as.
        ids: names that stay the same wherever the folder lies.
        value_range: values of 16-bit images that become black and white.
    """

    gives_batches = True
    advice = "repair or remove it"  # where a file cannot be read

    def __init__(
        self,
        images: Sequence[str | Image.Image],
        labels: Tensor | None,
        image_shape: tuple[int, int, int],
        ids: list[str] | None = None,
        value_range: Range | None = None,
    ) -> None:
        self.images, self.image_shape, self.ids = images, image_shape, ids
        self.labels: Any = labels
        self.value_range = value_range
        self.names = [one if isinstance(one, str) else str(i) for i, one in enumerate(images)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        return self.read(index), self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        return torch.stack(list(map(self.read, indices))), self.labels[indices]

    def read(self, index: int) -> Tensor:
        try:
            return self.attempt(index)
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; {self.advice}") from error

    def attempt(self, index: int) -> Tensor:
        return read_image(self.images[index], self.image_shape, self.value_range)


def read_image(
    path: str | Image.Image, image_shape: tuple[int, int, int], value_range: Range | None = None
) -> Tensor:
    """Reads an image as uint8 (C, H, W): resized until it covers H x W, and cropped at the centre.

    C is 1 (grey) or 3. Rotated as its EXIF data says; transparent pixels become white; the first of
    several frames is read; of 16-bit images, `value_range` becomes 0 to 255.

    Raises:
        UserError: the file cannot be read as an image.
    """
    channels, height, width = image_shape
    pixels = read_pixels(path, channels, max(height, width), value_range)
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = round(height * scale), round(width * scale)
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    middle = pixels[top : top + rows, left : left + columns].permute(2, 0, 1)
    # The same result as Pillow's, in less time.
    resized = functional.interpolate(middle[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].contiguous()


def read_pixels(
    path: str | Image.Image, channels: int, least: int, value_range: Range | None = None
) -> Tensor:
    """Reads an image as uint8 (H, W, C), rotated as its EXIF data says. Large JPEGs come smaller,
    but with no fewer than `least` pixels a side."""
    try:
        with path.copy() if isinstance(path, Image.Image) else Image.open(path) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: faster by as much.
            image.draft(None, (least, least))
            if ";16" in str(getattr(image, "tile", "")) and not image.mode.startswith("I"):
                warnings.warn(
                    "Of colours of 16 bits Pillow reads the upper 8: values below 256 become "
                    "black. Give images of 8 bits that span 0 to 255.",
                    stacklevel=2,
                )
            load_upright(image)
            return to_bytes(image, "L" if channels == 1 else "RGB", value_range)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{path} cannot be read as an image: {error}") from error


def load_upright(image: Image.Image) -> None:
    """Loads the pixels of an opened image, rotated as its EXIF data says."""
    image.load()
    with suppress(Exception):  # damaged EXIF data does not matter: the pixels are whole
        ImageOps.exif_transpose(image, in_place=True)


def to_bytes(image: Image.Image, mode: str, value_range: Range | None) -> Tensor:
    """Pixels of any mode as uint8 (H, W, C), where C is 1 for mode L and 3 for mode RGB."""
    if image.mode == "F":
        raise UserError("its pixels are floats, of a range that is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if values.max() > 0xFFFF or values.min() < 0:
            raise UserError("its pixels are integers of more than 16 bits")
        if value_range is None:
            raise UserError(
                "its pixels have 16 bits, of a range that is not known: make it one of 8 bits, or, "
                "with a folder of images, give data.value_range, such as [0, 4095]"
            )
        low, high = value_range
        scaled = (values - low) * (255 / (high - low))
        image = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == mode else image.convert(mode)
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
