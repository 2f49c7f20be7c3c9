"""Decoder-only transformer: rotary positions (Su et al. 2021), RMSNorm before each layer."""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Past = tuple[Tensor, Tensor]  # keys and values (B, heads, T, D / heads) of what came before


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates each pair of numbers of (B, heads, T, D) by its angle in (T, D / 2)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    """(B, T, D), angles (T, D / heads / 2), past keys and values -> (B, T, D), all so far."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.to_out.weight)  # at first a block changes nothing

    def forward(self, x: Tensor, angles: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        qkv = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        q, k = rotate(q, angles), rotate(k, angles)
        if past:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=past is None)
        return self.to_out(x.transpose(1, 2).flatten(2)), (k, v)


class Block(nn.Module):
    """Attention, then two linear layers, each after a norm and added to its input, (B, T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        last = nn.Linear(4 * dim, dim)
        nn.init.zeros_(last.weight)
        self.mlp = nn.Sequential(nn.RMSNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), last)

    def forward(self, x: Tensor, angles: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        change, present = self.attention(x, angles, past)
        x = x + change
        return x + self.mlp(x), present


class Backbone(nn.Module):
    def __init__(self, vocab_size: int, context: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.context, self.head_dim = context, dim // heads
        self.embedding = nn.Embedding(vocab_size, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.RMSNorm(dim)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, T) token ids and the state after those before -> (B, T, D), the state after these."""
        first, pasts = state or (0, repeat(None))
        positions = torch.arange(first, first + tokens.shape[1], device=tokens.device)
        exponents = torch.arange(0, self.head_dim, 2, device=tokens.device) / self.head_dim
        angles = positions[:, None] * 10_000.0**-exponents
        x = self.embedding(tokens)
        presents: list[Past] = []
        for block, past in zip(self.blocks, pasts, strict=False):
            x, present = block(x, angles, past)
            presents.append(present)
        return self.norm(x), (first + tokens.shape[1], presents)


class GPT(nn.Module):
    """Embeddings -> transformer blocks -> logits of the next token.

    Args:
        vocab_size: number of token ids.
        context: how many tokens the attention looks back.
        dim: width of the tokens, an even multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(
        self, vocab_size: int, context: int, dim: int = 128, depth: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"dim={dim} is no even multiple of heads={heads}")
        self.backbone = Backbone(vocab_size, context, dim, depth, heads)
        self.head = nn.Linear(dim, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, vocab_size) logits of the token after each."""
        return self.head(self.backbone(tokens)[0])

    def step(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, T) token ids, one at a time after the first call, and the state that it gave -> (B,
        vocab_size) logits of the next token, the new state."""
        context = self.backbone.context
        if state:  # it forgets the oldest
            count, pasts = state
            state = count, [(k[:, :, 1 - context :], v[:, :, 1 - context :]) for k, v in pasts]
        x, state = self.backbone(tokens[:, -context:], state)
        return self.head(x[:, -1]), state
