"""A look at some images before a fit: the values of those of 16 bits, and whether they show anything."""

from contextlib import suppress
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image
from torch.utils.data import Subset

from data.image_files import Range
from engine.errors import UserError

FLAT = 3  # of 255: an image whose values differ by less shows nothing


def spread(count: int, most: int) -> list[int]:
    """Up to `most` numbers below `count`, evenly."""
    return sorted({i * count // most for i in range(most)}) if count > most else [*range(count)]


def values_of(path: str, most: int = 4096) -> np.ndarray:
    """Some values of an image of 16 bits; none of another or of what cannot be read."""
    with suppress(Exception), Image.open(path) as image:  # an error comes when it is needed
        if image.mode.startswith("I"):
            values = np.asarray(image).ravel()
            return values[spread(len(values), most)]
    return np.zeros(0)


def check_range(value_range: Range | None) -> None:
    if value_range and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"value_range is {value_range}: give two values, the lower first.")


def find_range(names: list[str]) -> Range | None:
    """Which values images of 16 bits have: cameras use 10, 12 or 14 of the bits. The lowest and highest
    thousandth of the pixels, which may be faults of a sensor, do not count.

    Args:
        names: paths of all images; 512 of them are looked at.
    """
    if not any(len(values_of(names[i])) for i in spread(len(names), 32)):
        return None
    values = np.concatenate([values_of(names[i]) for i in spread(len(names), 512)])
    low, high = np.percentile(values, [0.1, 99.9])
    found = [int(low), max(int(np.ceil(high)), int(low) + 1)]
    rank_zero_info(f"Images of 16 bits have values from {found[0]} to {found[1]}: data.value_range")
    return found


def tell_flat(split: Subset) -> None:
    """Warns of images that are nearly of one tone, of 32 that are looked at."""
    samples: Any = split.dataset
    flat, some = [], spread(len(split), 32)
    for i in some:
        with suppress(ValueError):  # said when it is needed
            image = split[i][0]
            if int(image.max()) - int(image.min()) < FLAT:
                flat.append(samples.names[split.indices[i]])
    if flat:
        rank_zero_warn(
            f"{len(flat)} of {len(some)} images that were looked at are nearly of one tone: see {flat[0]}"
        )
