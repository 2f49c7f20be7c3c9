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


class Standardize(nn.Module):
    """Numbers (B, ...) of a batch (numbers, ...), less their mean and divided by their deviation.

    Args:
        mean: of each number, of the training samples.
        std: their standard deviation; numbers that never change are divided by one.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 0, std, 1.0))

    def forward(self, batch: Any) -> Any:
        numbers, *others = batch
        return (numbers - self.mean) / self.std, *others
