"""How a raw batch becomes what a system takes, in fit, `predict` and exported files alike."""

from typing import Any

import torch
from torch import nn

from engine.errors import UserError


class ScaleBytes(nn.Module):
    """uint8 images of a batch (images, ...) become floats in [-1, 1]; float images stay as they are.

    Args:
        floats: whether those of the fit are floats: bytes have another range.

    Raises:
        UserError: they are of another kind.
    """

    def __init__(self, floats: bool = False) -> None:
        super().__init__()
        self.floats = floats

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        if not (images.is_floating_point() if self.floats else images.dtype == torch.uint8):
            wanted = "floats, as in the fit" if self.floats else "bytes (torch.uint8)"
            raise UserError(f"Images of {images.dtype}: give {wanted}")
        return images if self.floats else images.float().div_(127.5).sub_(1), *others
