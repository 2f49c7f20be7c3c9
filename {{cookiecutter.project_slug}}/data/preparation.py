"""How a raw batch becomes what a system takes, in fit, `predict` and exported files alike."""

from typing import Any

import torch
from torch import nn


class ScaleBytes(nn.Module):
    """uint8 images of a batch (images, ...) become floats in [-1, 1]; float images stay as they are.

    Raises:
        ValueError: integers of another kind, whose range is not known.
    """

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        if images.dtype == torch.uint8:
            images = images.float().div_(127.5).sub_(1)
        elif not images.is_floating_point():
            raise ValueError(
                f"Images of {images.dtype}: give bytes (0 to 255), or floats as they are"
            )
        return images, *others
