"""Vision transformer (Dosovitskiy et al. 2021) in its simple form (Beyer et al. 2022)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        x = x + self.attention(x)
        return x + self.mlp(x)


class Backbone(nn.Module):
    def __init__(
        self, image_shape: tuple[int, int, int], patch: int, dim: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        num_patches = (height // patch) * (width // patch)
        self.to_patches = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(num_patches, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, 4 * dim) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, D)
        patches = self.to_patches(images).flatten(2).transpose(1, 2)  # (B, N, D)
        return self.norm(self.blocks(patches + self.position)).mean(dim=1)


class ViT(nn.Module):
    """Patches -> transformer blocks -> mean over the patches -> class logits.

    Args:
        image_shape: channels, height and width of the images, both divisible by ``patch_size``.
        num_classes: number of logits.
        patch_size: pixels a side of a patch; by default the largest divisor of the image's sides
            that leaves at least 4 x 4 patches, at most 16.
        dim: width of the tokens, divisible by ``heads``.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        patch_size: int | None = None,
        dim: int = 96,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        _, height, width = image_shape
        if patch_size is None:
            divides = [p for p in range(1, 17) if height % p == 0 == width % p]
            patch_size = max((p for p in divides if 4 * p <= min(height, width)), default=1)
        if height % patch_size or width % patch_size:
            raise ValueError(f"patch_size={patch_size} does not divide images of {height}x{width}")
        if dim % heads:
            raise ValueError(f"dim={dim} is not divisible by heads={heads}")
        self.backbone = Backbone(image_shape, patch_size, dim, depth, heads)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats -> (B, num_classes) logits."""
        return self.head(self.backbone(images))
