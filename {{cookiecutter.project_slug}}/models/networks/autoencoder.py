"""Convolutional autoencoder."""

from math import prod

import torch
from torch import Tensor, nn


class ChannelsLast(nn.Module):
    """Changes the memory format to channels_last, with which convolutions are faster."""

    def forward(self, images: Tensor) -> Tensor:
        # `contiguous` would leave images of one channel as they are.
        return images.clone(memory_format=torch.channels_last)


class ConvAutoencoder(nn.Module):
    """Image -> latent vector -> image. Two stages halve the image, two double it again.

    Args:
        image_shape: channels, height and width of the images.
        latent_dim: length of the latent vector.
        width: channels of the first stage; the second has twice as many.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int = 32, width: int = 32
    ) -> None:
        super().__init__()
        channels, height, w = image_shape
        # Kernel 3 with stride 2 rounds up; the way back is cut to these sizes.
        half, quarter = [((height + s - 1) // s, (w + s - 1) // s) for s in (2, 4)]
        inner = (2 * width, *quarter)
        self.encoder = nn.Sequential(
            ChannelsLast(),
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(prod(inner), latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, prod(inner)),
            nn.Unflatten(1, inner),
            ChannelsLast(),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Upsample(size=half),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Upsample(size=(height, w)),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats -> their reconstructions, the same shape."""
        return self.decoder(self.encoder(images))
