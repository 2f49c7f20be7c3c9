"""Scikit-learn's bundled handwritten digits: 1,797 grey images of 8x8 pixels, no download."""

import torch
from torch import Tensor

from data.images import ImageData


class Digits(ImageData):
    """Handwritten digits; a fifth of them, chosen by `seed`, is the test split."""

    image_shape = (1, 8, 8)
    class_names = list("0123456789")
    max_shift = 1

    def load(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        from sklearn.datasets import load_digits  # here: it is slow to import

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
        return images.unsqueeze(1), torch.from_numpy(digits.target).long(), {}
