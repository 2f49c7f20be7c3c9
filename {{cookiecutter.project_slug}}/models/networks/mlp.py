"""Multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn


class MLP(nn.Module):
    """Flattened image or row of features -> hidden layers (linear, batch norm, ReLU) -> logits.

    Args:
        input_shape: of one input: channels, height and width of an image, or a number of features.
        num_classes: number of logits.
        hidden_dims: widths of the hidden layers.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        hidden_dims: Sequence[int] = (64, 128, 64),
    ) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten())
        for dim_in, dim_out in pairwise([prod(input_shape), *hidden_dims]):
            self.backbone += nn.Sequential(
                nn.Linear(dim_in, dim_out, bias=False), nn.BatchNorm1d(dim_out), nn.ReLU()
            )
        self.head = nn.Linear([prod(input_shape), *hidden_dims][-1], num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, ...) floats -> (B, num_classes) logits."""
        return self.head(self.backbone(inputs))
