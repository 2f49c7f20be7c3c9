"""Splits and folds with the same share of every class: a function of the labels and a seed."""

from typing import Any

import torch
from torch import Tensor

from errors import UserError

Rows = dict[str, Tensor]  # indices of the images in each split: train, val, test


def shuffle(rows: Tensor, seed: int) -> Tensor:
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]


def sort_by_class(rows: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Class after class, shuffled within each."""
    rows = shuffle(rows, seed)
    return rows[labels[rows].argsort(stable=True)]


def split_off(rows: Tensor, labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """The rest of `rows`, and `fraction` of each class in them, rounded up."""
    rows = sort_by_class(rows, labels, seed)
    counts = labels[rows].bincount()
    place_in_class = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[labels[rows]]
    taken = place_in_class < (counts.double() * fraction).ceil()[labels[rows]]
    return rows[~taken], rows[taken]


def split_fold(
    rows: Tensor, labels: Tensor, num_folds: int, fold: int, seed: int
) -> tuple[Tensor, Tensor]:
    """The other folds of `rows`, and the given one."""
    rows = sort_by_class(rows, labels, seed)
    taken = torch.arange(len(rows)) % num_folds == fold
    return rows[~taken], rows[taken]


def complete_splits(rows: Rows, labels: Tensor, test_fraction: float, hparams: Any) -> Rows:
    """The splits that the data set comes with, if any, and those that it lacks.

    `hparams` has the data module's val_fraction, num_folds, fold and seed.
    """
    train, val = rows.get("train", torch.arange(len(labels))), rows.get("val")
    test, seed = rows.get("test"), hparams.seed
    if test is None:
        train, test = split_off(train, labels, test_fraction, seed)
    if hparams.num_folds is not None:
        pool = train if val is None else torch.cat([train, val])
        train, val = split_fold(pool, labels, hparams.num_folds, hparams.fold, seed)
    elif val is None:
        train, val = split_off(train, labels, hparams.val_fraction, seed)
    if not len(train):
        raise UserError(f"val_fraction {hparams.val_fraction} leaves no images to train on.")
    # Shuffled once, so that already the first batch has all classes; test stays in order.
    return {"train": shuffle(train, seed), "val": shuffle(val, seed), "test": test.sort().values}
