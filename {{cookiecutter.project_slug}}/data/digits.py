"""The handwritten digits that scikit-learn brings: 1,797 grey images of 8 x 8, no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from data.images import ImageData, in_memory
from engine.samples import TensorSamples
from engine.splits import Rows


class Digits(ImageData):
    """A fifth of the images, chosen by `seed`, is the test split."""

    image_shape = (1, 8, 8)
    class_names = list("0123456789")
    crop_padding = 1

    def load(self) -> tuple[TensorSamples, Rows]:
        # What `load_digits` reads, without the second that importing scikit-learn takes.
        [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
        table = np.loadtxt(Path(package, "datasets", "data", "digits.csv.gz"), delimiter=",")
        pixels = torch.from_numpy(table[:, :64]).view(-1, 1, 8, 8)
        images = pixels.mul(255 / 16).round().to(torch.uint8)
        return in_memory(images, torch.from_numpy(table[:, 64]).long()), {}
