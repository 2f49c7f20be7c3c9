"""How a raw batch becomes what a system takes, in fit, `predict` and exported files alike."""

from typing import Any

import torch
from torch import nn

from engine.errors import UserError


class ScaleBytes(nn.Module):
    """uint8 images of a batch (images, ...) become floats in [-1, 1]; float images stay as they are.

    Args:
        floats: whether those of the fit are floats; None: not known.

    Raises:
        UserError: integers of another kind, whose range is not known, or other images than in the fit.
    """

    def __init__(self, floats: bool | None = None) -> None:
        super().__init__()
        self.floats = floats

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        floats = images.is_floating_point()
        if self.floats not in (None, floats) or not (floats or images.dtype == torch.uint8):
            wanted = "bytes, or floats as they are"
            if self.floats is not None:
                wanted = "floats, as in the fit" if self.floats else "bytes, as in the fit"
            raise UserError(f"Images of {images.dtype}: give {wanted}")
        if not floats:
            images = images.float().div_(127.5).sub_(1)
        return images, *others
