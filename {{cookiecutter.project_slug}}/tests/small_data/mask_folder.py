"""A few random images with a bright square, and masks that say where it is."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(40):
        pixels = random.integers(0, 128, (40, 48, 3)).astype(np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        top, left = random.integers(0, 24, 2)
        pixels[top : top + 16, left : left + 16] += 100
        mask[top : top + 16, left : left + 16] = 1
        Image.fromarray(pixels).save(folder / "images" / f"{i:02}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"{i:02}.png")
    return [f"--data.data_dir={folder}", "--data.image_size=32"]
