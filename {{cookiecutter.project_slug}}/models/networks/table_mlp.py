"""Multilayer perceptron for the rows of a table."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class TableMLP(nn.Module):
    """Numbers and embedded categories -> hidden layers (linear, batch norm, ReLU, dropout) ->
    outputs, to which a linear function of the inputs is added: small tables often need no more.

    Args:
        num_numbers: how many numbers a row has.
        cardinalities: number of codes of each category; code 0 is unknown, its embedding is 0.
        num_outputs: logits of the classes, or 1.
        hidden_dims: widths of the hidden layers.
        dropout: probability of dropping a unit.
    """

    def __init__(
        self,
        num_numbers: int,
        cardinalities: Sequence[int],
        num_outputs: int,
        hidden_dims: Sequence[int] = (64, 64),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        widths = [min(32, 1 + size // 2) for size in cardinalities]
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, width, padding_idx=0)
            for size, width in zip(cardinalities, widths, strict=True)
        )
        dim = num_numbers + sum(widths)
        self.backbone = nn.Sequential()
        for dim_in, dim_out in pairwise([dim, *hidden_dims]):
            self.backbone += nn.Sequential(
                nn.Linear(dim_in, dim_out, bias=False),
                nn.BatchNorm1d(dim_out),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
        self.head = nn.Linear([dim, *hidden_dims][-1], num_outputs)
        self.linear = nn.Linear(dim, num_outputs, bias=False)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """(B, num_numbers) floats, (B, len(cardinalities)) codes -> (B, num_outputs)."""
        embedded = [embed(codes[:, i]) for i, embed in enumerate(self.embeddings)]
        inputs = torch.cat([numbers, *embedded], dim=1)
        return self.head(self.backbone(inputs)) + self.linear(inputs)
