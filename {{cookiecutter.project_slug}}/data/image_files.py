"""Images in files, read a batch at a time."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from engine.errors import UserError

Batch = tuple[Tensor, Tensor]

EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class ImageFiles(Dataset):
    """Images that are read when they are fetched: uint8 (B, C, H, W) and int64 labels (B,)."""

    gives_batches = True

    def __init__(
        self,
        names: list[str],
        labels: Tensor,
        image_shape: tuple[int, int, int],
        images: list[str | Image.Image] | None = None,
    ) -> None:
        self.names, self.labels, self.image_shape = names, labels, image_shape
        self.images: list[Any] = images or names  # opened ones, or their paths

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Batch:
        return read_image(self.images[index], self.image_shape), self.labels[index]

    def __getitems__(self, indices: list[int]) -> Batch:
        images = [read_image(self.images[i], self.image_shape) for i in indices]
        return torch.stack(images), self.labels[indices]


def open_images(source: Any, channels: int) -> list[str | Image.Image]:
    """The images of a file, in and below a folder, of Pillow, of integers in an array (H, W),
    (H, W, C), (N, H, W, C) or (N, C, H, W), where grey ones need no C; or of a list of all these."""
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
        raise UserError(
            f"Images of {pixels.dtype}: give integers, bytes from 0 to 255, as files do."
        )
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


def find_images(folder: str | Path) -> list[str]:
    """Paths of all images in and below a folder, sorted; hidden files and folders are left out."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    paths = []
    for here, folders, files in os.walk(folder, followlinks=True):
        real = Path(here).resolve()
        folders[:] = [
            name
            for name in folders
            # Not into a link to a folder that it lies in itself.
            if not (name.startswith(".") or real.is_relative_to(Path(here, name).resolve()))
        ]
        paths += [os.path.join(here, name) for name in files if not name.startswith(".")]
    paths = [path for path in paths if os.path.splitext(path)[1].lower() in EXTENSIONS]
    if not paths:
        raise UserError(
            f"There are no images in {folder}: no file there ends in {', '.join(sorted(EXTENSIONS))}."
        )
    return sorted(paths)


def read_image(path: str | Image.Image, image_shape: tuple[int, int, int]) -> Tensor:
    """Reads an image as uint8 (C, H, W): resized until it covers H x W, and cropped at the centre.

    C is 1 (grey) or 3. Turned as its EXIF data says; what is transparent becomes white; of several
    frames the first counts; 16 bits become 8.

    Raises:
        ValueError: the file cannot be read as an image; names it.
    """
    channels, height, width = image_shape
    try:
        with path.copy() if isinstance(path, Image.Image) else Image.open(path) as image:
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size: faster by as much.
            image.draft(None, (max(height, width),) * 2)
            ImageOps.exif_transpose(image, in_place=True)
            pixels = to_bytes(image, "L" if channels == 1 else "RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = round(height * scale), round(width * scale)
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    middle = pixels[top : top + rows, left : left + columns].permute(2, 0, 1)
    # The same result as Pillow's, in less time.
    resized = functional.interpolate(middle[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].contiguous()


def to_bytes(image: Image.Image, mode: str) -> Tensor:
    """Pixels of any kind as uint8 (H, W, C), C being 1 for mode L and 3 for mode RGB."""
    if image.mode == "F":
        raise UserError("its pixels are floats, of a range that is not known")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.max() > 0xFFFF or values.min() < 0:
            raise UserError("its pixels are integers of more than 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == mode else image.convert(mode)
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1)
