"""Augmentation of a whole batch on the device it is on; each image gets its own draw."""

import torch
from torch import Tensor
from torch.nn import functional


def random_crop(images: Tensor, padding: int, flip: bool) -> Tensor:
    """Pads images (B, C, H, W) with black, crops H x W at random, mirrors half of them if `flip`.

    One gather for crop and mirror: the index of every pixel is computed, no image is looped over.
    """
    batch, channels, height, width = images.shape
    device = images.device
    padded = functional.pad(images, [padding] * 4)
    top, left = torch.randint(2 * padding + 1, (2, batch, 1), device=device)
    columns = torch.arange(width, device=device).expand(batch, -1)
    if flip:
        mirrored = torch.rand(batch, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows = torch.arange(height, device=device) + top
    pixels = rows[:, :, None] * padded.shape[-1] + (columns + left)[:, None, :]
    index = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view_as(images)
