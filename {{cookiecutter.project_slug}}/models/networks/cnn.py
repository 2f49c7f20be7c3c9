"""Small convolutional network."""

import torch
from torch import Tensor, nn


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class CNN(nn.Module):
    """Stages of two 3x3 convolutions; each stage halves the image, each but the first doubles
    the channels; then global average pooling and a linear head.

    Args:
        image_shape: channels, height and width of the images.
        num_classes: number of logits.
        width: channels of the first stage.
        depth: number of stages; the image must be at least ``2 ** (depth - 1)`` pixels a side.
        dropout: probability of dropping a feature before the head.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        width: int = 32,
        depth: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        if min(height, width_px) < 2 ** (depth - 1):
            raise ValueError(
                f"depth={depth} halves the image {depth - 1} times, too often for "
                f"{height}x{width_px} pixels; lower depth to {min(height, width_px).bit_length()} "
                "or use larger images"
            )
        self.backbone = nn.Sequential()
        for stage in range(depth):
            if stage:
                self.backbone.append(nn.MaxPool2d(2))
            dim = width * 2**stage
            self.backbone += nn.Sequential(conv_block(channels, dim), conv_block(dim, dim))
            channels = dim
        self.backbone += nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats -> (B, num_classes) logits."""
        # Convolutions are faster with channels_last. `clone`, since `contiguous` leaves images of
        # one channel as they are.
        images = images.clone(memory_format=torch.channels_last)
        return self.head(self.backbone(images))
