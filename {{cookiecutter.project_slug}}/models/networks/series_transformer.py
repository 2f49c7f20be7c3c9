"""Transformer over patches of a series (PatchTST, Nie et al. 2023)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.forecast_head import ForecastHead, by_series


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.Dropout(dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        x = x + self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class SeriesTransformer(nn.Module):
    """Cuts each series into patches that overlap by half -> transformer blocks -> mean over the
    patches -> a head. All series share the weights, and none sees another.

    Args:
        input_shape: steps of the past that are seen, and numbers of each: values and their changes
            (`num_series` each), then covariates.
        known_shape: steps that are forecast, and numbers that are known of each: values, then
            covariates.
        num_series: numbers that are forecast of each step.
        patch_size: steps of a patch; fewer where a window is too short for two.
        dim: width of the tokens, divisible by ``heads``.
        depth: number of blocks.
        heads: attention heads.
        dropout: probability of dropping a number after a block's layers and before the head.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        known_shape: Sequence[int],
        num_series: int,
        patch_size: int = 16,
        dim: int = 32,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} is not divisible by heads={heads}")
        steps, horizon = input_shape[0], known_shape[0]
        covariates = known_shape[1] - num_series
        self.num_series = num_series
        patch = max(min(patch_size, steps // 2), 1)
        stride = max(patch // 2, 1)
        num_patches = (steps - patch) // stride + 1
        self.first = (steps - patch) % stride  # the last step is in a patch
        self.to_patches = nn.Conv1d(2 + covariates, dim, kernel_size=patch, stride=stride)
        self.position = nn.Parameter(0.02 * torch.randn(num_patches, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        shapes = (steps, 2 + covariates), (horizon, 1 + covariates)
        self.head = ForecastHead(dim, *shapes, num_series=1, dropout=dropout)

    def forward(self, past: Tensor, known: Tensor) -> Tensor:
        """(B, steps, inputs) and (B, horizon, known) floats -> (B, horizon, series)."""
        past = by_series(past, 2, self.num_series).flatten(0, 1)  # (B x series, steps, 2 + shared)
        known = by_series(known, 1, self.num_series).flatten(0, 1)
        patches = self.to_patches(past[:, self.first :].transpose(1, 2)).transpose(1, 2)
        features = self.norm(self.blocks(patches + self.position)).mean(dim=1)
        forecast = self.head(features, past, known).squeeze(2)
        return forecast.unflatten(0, (-1, self.num_series)).transpose(1, 2)
