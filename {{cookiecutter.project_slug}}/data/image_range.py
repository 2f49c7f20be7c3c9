"""A look at images before a fit: at all of them, and at the values of those of 16 bits."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch.utils.data import DataLoader, default_convert

from data.image_files import Range
from engine.errors import UserError


def read_through(samples: Any, num_workers: int) -> DataLoader:
    """Whole batches of all samples, in order. It draws no random number."""
    options: Any = {"num_workers": num_workers, "generator": torch.Generator()}
    # Whole batches: each tensor that a worker hands over takes an open file of the process.
    return DataLoader(samples, batch_size=64, collate_fn=default_convert, **options)


def spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers below `count`, evenly spaced."""
    return sorted({i * count // most for i in range(most)}) if count > most else [*range(count)]


def values_of(path: str, most: int = 4096) -> np.ndarray:
    """Up to `most` values of a 16-bit image; none of other images, or if it cannot be read."""
    with suppress(Exception), Image.open(path) as image:  # errors are shown when it is needed
        if image.mode.startswith("I"):
            values = np.asarray(image).ravel()
            return values[spread(len(values), most)]
    return np.zeros(0)


def check_range(value_range: Range | None) -> None:
    if value_range and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"value_range is {value_range}: give two values, the lower first.")


def find_range(names: list[str]) -> Range | None:
    """The range of values in 16-bit images, if there are any: cameras use 10, 12 or 14 of the bits.
    The lowest and highest thousandth of the pixels, which may be sensor faults, do not count.

    Args:
        names: paths of all images; 512 of them are read.
    """
    if not any(len(values_of(names[i])) for i in spread(len(names), 32)):
        return None
    values = np.concatenate([values_of(names[i]) for i in spread(len(names), 512)])
    low, high = np.percentile(values, [0.1, 99.9])
    found = [int(low), max(int(np.ceil(high)), int(low) + 1)]
    text = f"{found[0]} becomes black, {found[1]} white; data.value_range sets other values"
    rank_zero_info(f"Images of 16 bits: {text}")
    return found
