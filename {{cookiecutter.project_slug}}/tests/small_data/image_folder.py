"""A few random photographs of two classes."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(50):
            pixels = random.integers(0, 256, (40, 48, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.jpg")
    return [f"--data.data_dir={folder}", "--data.image_size=16"]
