"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597), with batch norm."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Stages of two 3x3 convolutions. On the way down each stage halves the image and doubles the
    channels; on the way up each concatenates the enlarged stage below and that of its own size.

    Args:
        image_shape: channels, height and width of the images.
        num_classes: number of logits of a pixel.
        width: channels of the first stage.
        depth: number of stages; the image must be at least ``2 ** (depth - 1)`` pixels a side.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, width: int = 16, depth: int = 4
    ) -> None:
        super().__init__()
        channels, height, width_px = image_shape
        if min(height, width_px) < 2 ** (depth - 1):
            raise ValueError(
                f"depth={depth} halves the image {depth - 1} times, too often for "
                f"{height}x{width_px} pixels; lower depth to {min(height, width_px).bit_length()} "
                "or use larger images"
            )
        dims = [width * 2**stage for stage in range(depth)]
        self.down = nn.ModuleList(map(conv_block, [channels, *dims[:-1]], dims))
        pairs = list(zip(dims[1:], dims[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(below, dim, kernel_size=1) for below, dim in pairs)
        self.up = nn.ModuleList(conv_block(2 * dim, dim) for _, dim in pairs)
        self.head = nn.Conv2d(width, num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats -> (B, num_classes, H, W) logits."""
        # Convolutions are faster with channels_last. `clone`, since `contiguous` leaves images of
        # one channel as they are.
        x = images.clone(memory_format=torch.channels_last)
        stages: list[Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if stages else x)
            stages.append(x)
        for narrow, block, beside in zip(self.narrow, self.up, stages[-2::-1], strict=True):
            x = functional.interpolate(narrow(x), size=beside.shape[2:])
            x = block(torch.cat([x, beside], dim=1))
        return self.head(x)
