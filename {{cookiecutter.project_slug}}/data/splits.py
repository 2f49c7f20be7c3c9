"""Stratified splits and folds: a function of the labels and a seed."""

import torch
from torch import Tensor


def shuffle(rows: Tensor, seed: int) -> Tensor:
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]


def split_off(rows: Tensor, labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits `rows` of the labels (N,) in two: the rest, and `fraction` of each class, rounded up."""
    rows = shuffle(rows, seed)
    rows = rows[labels[rows].argsort(stable=True)]
    counts = labels[rows].bincount()
    place_in_class = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[labels[rows]]
    taken = place_in_class < (counts.double() * fraction).ceil()[labels[rows]]
    return rows[~taken], rows[taken]


def split_fold(
    rows: Tensor, labels: Tensor, folds: int, fold: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Splits `rows` of the labels (N,) in two: the other folds, and the given one (from 0)."""
    rows = shuffle(rows, seed)
    rows = rows[labels[rows].argsort(stable=True)]
    taken = torch.arange(len(rows)) % folds == fold
    return rows[~taken], rows[taken]
