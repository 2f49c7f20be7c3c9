"""Augmentation of whole batches on the device they are on: every image gets its own draw."""

import torch
from torch import Tensor


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Moves each image by up to `pixels` in both directions; what comes in is zero (black).

    The usual random crop with padding. Shape and dtype stay: (B, C, H, W).
    """
    batch, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, [pixels] * 4)
    offsets = torch.randint(2 * pixels + 1, (2, batch, 1), device=images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)
    columns = offsets[1] + torch.arange(width, device=images.device)
    flat = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    index = flat.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view_as(images)


def random_flip(images: Tensor) -> Tensor:
    """Mirrors half of the images left to right. Shape and dtype stay: (B, C, H, W)."""
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)
