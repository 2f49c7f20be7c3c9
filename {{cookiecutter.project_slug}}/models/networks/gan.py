"""Convolutional generator and discriminator, after DCGAN (Radford et al. 2016)."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class ChannelsLast(nn.Module):
    """Changes the memory format to channels_last, with which convolutions are faster."""

    def forward(self, images: Tensor) -> Tensor:
        # `contiguous` would leave images of one channel as they are.
        return images.clone(memory_format=torch.channels_last)


class ConvGAN(nn.Module):
    """A generator of images in [-1, 1] and a discriminator of them.

    The discriminator's layers carry spectral normalisation (Miyato et al. 2018), which keeps the
    two in balance without a schedule.

    Args:
        image_shape: channels, height and width of the images.
        latent_dim: length of the noise vector.
        width: channels of the layers next to the image; the inner ones have twice as many.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int = 64, width: int = 32
    ) -> None:
        super().__init__()
        self.arguments = image_shape, latent_dim, width
        channels, height, w = image_shape
        half, quarter = [((height + s - 1) // s, (w + s - 1) // s) for s in (2, 4)]
        inner = (2 * width, *quarter)
        self.latent_dim = latent_dim
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, prod(inner), bias=False),
            nn.BatchNorm1d(prod(inner)),
            nn.ReLU(),
            nn.Unflatten(1, inner),
            ChannelsLast(),
            nn.Upsample(size=half),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Upsample(size=(height, w)),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            ChannelsLast(),
            spectral_norm(nn.Conv2d(channels, width, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            spectral_norm(nn.Linear(prod(inner), 1)),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent_dim) noise -> (B, C, H, W) images in [-1, 1]."""
        return self.generator(noise)

    def __reduce__(self) -> tuple[Any, ...]:
        # ddp_spawn pickles the network, and layers with spectral normalisation cannot be.
        return rebuild, (self.arguments, self.state_dict())


def rebuild(arguments: tuple[Any, ...], weights: dict[str, Tensor]) -> ConvGAN:
    network = ConvGAN(*arguments)
    network.load_state_dict(weights)
    return network
