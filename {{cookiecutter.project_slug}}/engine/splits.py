"""Splits and folds, with the same share of every class where there are classes. A split belongs to
the sample: samples that are added or removed move no other of those that a checkpoint knows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Subset

from engine.errors import UserError
from engine.sample_keys import in_order_of, keys_of
from engine.sizes import fraction_of

Rows = dict[str, Tensor]  # indices of the samples in each split: train, val, test
SPLITS = ("train", "val", "test")
SETTINGS = ("seed", "val_fraction", "num_folds", "fold")
# What is measured: the splits of which no sample may have been trained on.
MEASURED = {"fit": "val", "validate": "val", "test": "test", "predict": "test"}


@dataclass
class Record:
    """The splits of a fit, as its checkpoints hold them: 8 bytes for each sample."""

    keys: Rows  # of the samples in each split, sorted
    settings: dict[str, Any]  # of the data module, from which the splits followed

    def has(self, split: str, keys: Tensor) -> Tensor:
        """Which of these samples (N,) were in that split."""
        return torch.isin(keys, self.keys[split])

    def knows(self, keys: Tensor) -> Tensor:
        """Which of these samples (N,) were there."""
        return torch.stack([self.has(split, keys) for split in SPLITS]).any(dim=0)

    def differing(self, hparams: Any) -> list[str]:
        """The settings that are others now."""
        return [name for name in SETTINGS if self.settings[name] != getattr(hparams, name)]

    def keeps(self, split: str, hparams: Any) -> bool:
        """Whether the split follows from the same settings. The test split depends on the seed."""
        differing = self.differing(hparams)
        return "seed" not in differing if split == "test" else not differing


def record_splits(keys: Tensor, rows: Rows, hparams: Any, earlier: Record | None) -> Record:
    """The record of these splits. What has been removed since an earlier one may come back."""
    found = {split: keys[rows[split]] for split in SPLITS}
    if earlier:
        for split, known in earlier.keys.items():
            found[split] = torch.cat([found[split], known[~torch.isin(known, keys)]])
    settings = {name: getattr(hparams, name) for name in SETTINGS}
    return Record({split: found[split].sort().values for split in SPLITS}, settings)


def is_classes(labels: Any) -> bool:
    """Whether labels are integers (N,), of which most are not there once, as prices are."""
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):  # none, or texts
        return False
    whole = labels.ndim == 1 and not (labels.is_floating_point() or labels.is_complex())
    return whole and 2 * len(labels.unique()) <= len(labels)


def classes_of(labels: Any, count: int) -> Tensor:
    """The class (N,) of each sample, if the labels are classes; else one class of all."""
    if not is_classes(labels):
        return torch.zeros(count, dtype=torch.long)
    return torch.as_tensor(labels).unique(return_inverse=True)[1]


def first_of_class(classes: Tensor, counts: Tensor) -> Tensor:
    """Whether a sample (N,) is among so many first of its class. `classes` (N,) is sorted."""
    sizes = classes.bincount()
    return torch.arange(len(classes)) - (sizes.cumsum(0) - sizes)[classes] < counts[classes]


def split_off(rows: Tensor, labels: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """The rest of `rows`, with classes of one; the first `fraction` of each class, rounded up."""
    rows = rows[labels[rows].argsort(stable=True)]
    sizes = labels[rows].bincount()
    counts = torch.where(sizes > 1, (sizes.double() * fraction).ceil(), 0)
    taken = first_of_class(labels[rows], counts)
    return rows[~taken], rows[taken]


def split_fold(rows: Tensor, labels: Tensor, num_folds: int, fold: int) -> tuple[Tensor, Tensor]:
    """The other folds of `rows`, and the given one."""
    rows = rows[labels[rows].argsort(stable=True)]
    taken = torch.arange(len(rows)) % num_folds == fold
    return rows[~taken], rows[taken]


def keep(
    rest: Tensor, part: Tensor, labels: Tensor, inside: Tensor, outside: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, but samples that were `inside` (N,) of the part stay so, and `outside` ones (N,)
    too: the others are dealt so that the part has as many of each class as before, if possible."""
    rows = torch.cat([part, rest])  # the part's order decides which of the others it gets
    counts = labels[part].bincount(minlength=int(labels.max()) + 1)
    rows = rows[(outside.long() - inside.long())[rows].argsort(stable=True)]
    rows = rows[labels[rows].argsort(stable=True)]
    taken = first_of_class(labels[rows], counts) & ~outside[rows] | inside[rows]
    return rows[~taken], rows[taken]


def complete_splits(
    rows: Rows, keys: Tensor, labels: Any, share: float, hparams: Any, record: Record | None = None
) -> Rows:
    """The splits that the data set comes with, if any, and those that it lacks, of samples with
    these keys (N,) and perhaps labels; those of a record are kept, as far as they follow from the
    same settings (the data module's val_fraction, num_folds, fold and seed)."""
    labels, order = classes_of(labels, len(keys)), in_order_of(keys, hparams.seed)

    def in_order(rows: Tensor) -> Tensor:
        return rows[order[rows].argsort()]

    def as_recorded(split: str, rest: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        if record is None or not record.keeps(split, hparams):
            return rest, part
        inside = record.has(split, keys)
        return keep(rest, part, labels, inside, record.knows(keys) & ~inside)

    train, val = rows.get("train", torch.arange(len(keys))), rows.get("val")
    test = rows.get("test")
    if test is None:
        train, test = as_recorded("test", *split_off(in_order(train), labels, share))
    if hparams.num_folds is not None:
        pool = in_order(train if val is None else torch.cat([train, val]))
        if len(pool) < hparams.num_folds:
            folds = f"{hparams.num_folds} folds of {len(pool)} samples"
            raise UserError(f"{folds}: some would be empty.")
        parts = split_fold(pool, labels, hparams.num_folds, hparams.fold)
        train, val = as_recorded("val", *parts)
    elif val is None:
        parts = split_off(in_order(train), labels, fraction_of(hparams.val_fraction, len(train)))
        train, val = as_recorded("val", *parts)
    elif hparams.val_fraction != "auto":
        rank_zero_warn(
            f"val_fraction is {hparams.val_fraction}, and the data comes with a validation split: "
            "that is used, as it is."
        )
    if not len(train):
        raise UserError(f"val_fraction {hparams.val_fraction} leaves no samples to train on.")
    # Shuffled once, so that even the first batch has all classes; test stays in order.
    return {"train": in_order(train), "val": in_order(val), "test": test.sort().values}


def check_overlap(split: str, keys: Tensor, record: Record, hparams: Any, checkpoint: str) -> None:
    """Raises a UserError if an evaluation would measure samples that were trained on."""
    if not (seen := int(record.has("train", keys).sum())):
        return
    if differing := record.differing(hparams):
        there = ", ".join(f"data.{name} {record.settings[name]}" for name in differing)
        here = ", ".join(f"{getattr(hparams, name)}" for name in differing)
        why = f"It was fitted with {there}, here it is {here}: leave that out to take its splits"
    else:
        why = "The data set has them in another split than in that fit: put them back"
    raise UserError(
        f"{checkpoint} was trained on {seen} of the {len(keys)} samples of the {split} split. "
        f"{why}, or start a new fit."
    )


class Dealing:
    """Deals the samples of a data module to splits; a missing test split gets this fraction."""

    def __init__(self, fraction: float, hparams: Any) -> None:
        self.fraction, self.hparams = fraction, hparams
        self.samples: Any = None
        self.record: Record | None = None  # of the splits, for a checkpoint
        self.earlier: Record | None = None  # that of the checkpoint at hand

    def take(
        self, samples: Any, rows: Rows, split: Callable[[Any, Rows], Rows]
    ) -> dict[str, Subset]:
        """The splits of these samples, of which some come with them, and `split` knows all."""
        self.samples, self.given, self.split = samples, rows, split
        self.keys = keys_of(samples, rows)
        return self.deal()

    def complete(self, samples: Any, rows: Rows) -> Rows:
        """All splits: those that the samples come with, and others that are split off."""
        labels = getattr(samples, "labels", None)
        options = labels, self.fraction, self.hparams, self.earlier
        return complete_splits(rows, self.keys, *options)

    def deal(self) -> dict[str, Subset]:
        self.rows = self.split(self.samples, self.given)
        self.record = record_splits(self.keys, self.rows, self.hparams, self.earlier)
        splits = {name: Subset(self.samples, rows.tolist()) for name, rows in self.rows.items()}
        return {**splits, "predict": splits["test"]}

    def go_on(self, record: Record, stage: str | None, checkpoint: str) -> dict[str, Subset]:
        """The splits of the fit of a checkpoint, if they are others; what has been added since is
        dealt. Raises a UserError if what would be measured was trained on."""
        self.earlier = record
        if self.samples is None:  # they come later
            return {}
        before, splits = self.rows, self.deal()
        if all(torch.equal(before[name], rows) for name, rows in self.rows.items()):
            splits = {}
        used = self.keys[torch.cat(list(self.rows.values()))]
        known = torch.cat(list(record.keys.values()))
        added = int((~torch.isin(used, known)).sum())
        removed = int((~torch.isin(known, self.keys)).sum())
        if added or removed:
            kept = [record.has(name, self.keys[rows]).sum() for name, rows in self.rows.items()]
            moved = len(known) - removed - int(sum(kept))
            others = f"{moved} have left their split" if moved else "all others keep their split"
            changed = " What was renamed, changed or copied is new, and may have been trained on."
            rank_zero_info(
                f"Since the fit of {checkpoint}, {added} samples have been added and {removed} "
                f"removed; {others}.{changed * bool(added)}"
            )
        if measured := MEASURED.get(stage or ""):
            keys = self.keys[self.rows[measured]]
            check_overlap(measured, keys, record, self.hparams, checkpoint)
        return splits
