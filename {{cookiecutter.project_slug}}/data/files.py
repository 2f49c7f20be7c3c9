"""Finding and reading image files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def find_images(folder: str | Path) -> list[Path]:
    """All image files in and below a folder, sorted by path; hidden ones are left out."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    files = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )
    if not files:
        raise FileNotFoundError(
            f"No images in {folder}; looked for {', '.join(sorted(EXTENSIONS))}."
        )
    return files


def read_image(path: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """A file as uint8 (C, H, W), resized to cover H x W and cropped at the centre."""
    channels, height, width = image_shape
    with Image.open(path) as image:
        image = image.convert("L" if channels == 1 else "RGB").resize((width, height))
        return torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1)


class ImageFiles:
    """Image files that are read when indexed with a tensor of rows: uint8 (B, C, H, W)."""

    def __init__(self, files: list[Path], image_shape: tuple[int, int, int]) -> None:
        self.files, self.image_shape = files, image_shape

    def __getitem__(self, rows: Tensor) -> Tensor:
        return torch.stack([read_image(self.files[row], self.image_shape) for row in rows.tolist()])
