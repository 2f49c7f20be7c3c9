"""FT-Transformer (Gorishniy et al. 2021): a token for each column of a table."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tokenizer(nn.Module):
    """Each number times a vector of its own, each category an embedding, a bias for each column;
    before them a token that is always the same, from which the outputs are read."""

    first: Tensor  # row of each category's code 0

    def __init__(self, num_numbers: int, cardinalities: Sequence[int], dim: int) -> None:
        super().__init__()
        columns = num_numbers + len(cardinalities)
        self.weight = nn.Parameter(torch.empty(1 + num_numbers, dim).uniform_(-1, 1) / dim**0.5)
        self.bias = nn.Parameter(torch.empty(columns, dim).uniform_(-1, 1) / dim**0.5)
        self.embedding = nn.Embedding(max(1, sum(cardinalities)), dim)
        nn.init.uniform_(self.embedding.weight, -(dim**-0.5), dim**-0.5)
        first = torch.tensor([0, *cardinalities]).cumsum(0)[:-1]
        # A copy: torch.export cannot save an empty part of a tensor.
        self.register_buffer("first", first.clone(), persistent=False)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:  # -> (B, 1 + columns, D)
        factors = F.pad(numbers, (1, 0), value=1.0)
        embedded = self.embedding(codes + self.first) * (codes > 0).unsqueeze(-1)  # unknown: 0
        tokens = torch.cat([factors.unsqueeze(-1) * self.weight, embedded], dim=1)
        return tokens + F.pad(self.bias, (0, 0, 1, 0))


class Block(nn.Module):
    """Attention, then a gated layer (ReGLU), each after a norm and added to its input. As in the
    paper, the first block's attention has no norm: it would hide how large the numbers are."""

    def __init__(self, dim: int, heads: int, dropout: float, is_first: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.Identity() if is_first else nn.LayerNorm(dim)
        self.gate_norm = nn.LayerNorm(dim)
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.to_gate, self.to_sum = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, D) -> (B, N, D)
        dropout = self.dropout if self.training else 0.0
        qkv = self.to_qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        x = x + self.to_out(found.transpose(1, 2).flatten(2))
        values, gates = self.to_gate(self.gate_norm(x)).chunk(2, dim=-1)
        return x + self.to_sum(F.dropout(values * gates.relu(), dropout, self.training))


class TabularTransformer(nn.Module):
    """Numbers and categories -> a token for each -> transformer blocks -> outputs.

    Args:
        num_numbers: how many numbers a row has.
        cardinalities: number of codes of each category; code 0 is unknown, its embedding is 0.
        num_outputs: logits of the classes, or 1.
        dim: width of the tokens, divisible by ``heads``.
        depth: number of blocks.
        heads: attention heads.
        dropout: probability of dropping an attention weight or a gated unit.
    """

    def __init__(
        self,
        num_numbers: int,
        cardinalities: Sequence[int],
        num_outputs: int,
        dim: int = 64,
        depth: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} is not divisible by heads={heads}")
        self.tokens = Tokenizer(num_numbers, cardinalities, dim)
        blocks = (Block(dim, heads, dropout, is_first=place == 0) for place in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, num_outputs))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """(B, num_numbers) floats, (B, len(cardinalities)) codes -> (B, num_outputs)."""
        return self.head(self.blocks(self.tokens(numbers, codes))[:, 0])
