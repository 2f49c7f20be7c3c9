"""Scikit-learn's bundled handwritten digits: 1,797 grey images of 8 x 8, without a download."""

import torch

from data.datasets import ImageTensors
from data.images import ImageData
from data.splits import Rows

CLASS_NAMES = list("0123456789")


class Digits(ImageData):
    """A fifth of the images, chosen by `seed`, is the test split."""

    image_shape = (1, 8, 8)
    class_names = CLASS_NAMES
    crop_padding = 1

    def load(self) -> tuple[ImageTensors, Rows]:
        from sklearn.datasets import load_digits  # here, since its import takes a while

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
        return ImageTensors(images.unsqueeze(1), torch.from_numpy(digits.target).long()), {}
