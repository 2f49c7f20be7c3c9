"""Splits and folds, with the same share of every class where there are classes: a function of the
labels and a seed."""

from typing import Any

import torch
from torch import Tensor

from engine.errors import UserError
from engine.sizes import fraction_of

Rows = dict[str, Tensor]  # indices of the samples in each split: train, val, test


def shuffle(rows: Tensor, seed: int) -> Tensor:
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]


def sort_by_class(rows: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Class after class, shuffled within each."""
    rows = shuffle(rows, seed)
    return rows[labels[rows].argsort(stable=True)]


def is_classes(labels: Any) -> bool:
    """Whether labels are integers of one dimension."""
    if labels is None:
        return False
    labels = torch.as_tensor(labels)
    return labels.ndim == 1 and not (labels.is_floating_point() or labels.is_complex())


def classes_of(labels: Any, count: int) -> Tensor:
    """The class (N,) of each sample, if the labels are classes; else one class of all."""
    if not is_classes(labels):
        return torch.zeros(count, dtype=torch.long)
    return torch.as_tensor(labels).unique(return_inverse=True)[1]


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


def check_splits(val_fraction: float | str, num_folds: int | None, fold: int) -> None:
    """Raises a UserError for arguments of the data module that make no sense."""
    if val_fraction != "auto" and not 0 < float(val_fraction) < 1:
        raise UserError(f"val_fraction is {val_fraction}: it must lie between 0 and 1, or be auto.")
    if num_folds is not None and not 0 <= fold < num_folds > 1:
        raise UserError(
            f"fold is {fold} of num_folds {num_folds}: "
            "num_folds must be 2 or more, and fold from 0 to num_folds - 1."
        )


def complete_splits(
    rows: Rows, count: int, labels: Any, test_fraction: float, hparams: Any
) -> Rows:
    """The splits that the data set of `count` samples comes with, if any, and those that it lacks.

    `hparams` has the data module's val_fraction, num_folds, fold and seed.
    """
    labels = classes_of(labels, count)
    train, val = rows.get("train", torch.arange(count)), rows.get("val")
    test, seed = rows.get("test"), hparams.seed
    if test is None:
        train, test = split_off(train, labels, test_fraction, seed)
    if hparams.num_folds is not None:
        pool = train if val is None else torch.cat([train, val])
        train, val = split_fold(pool, labels, hparams.num_folds, hparams.fold, seed)
    elif val is None:
        fraction = fraction_of(hparams.val_fraction, len(train))
        train, val = split_off(train, labels, fraction, seed)
    if not len(train):
        raise UserError(f"val_fraction {hparams.val_fraction} leaves no samples to train on.")
    # Shuffled once, so that even the first batch has all classes; test stays in order.
    return {"train": shuffle(train, seed), "val": shuffle(val, seed), "test": test.sort().values}
