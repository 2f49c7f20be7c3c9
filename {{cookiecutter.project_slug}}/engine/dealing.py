"""How a data module deals its samples to splits: no sample that was trained on is evaluated."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import Subset

from engine.sample_keys import keys_of
from engine.splits import Record, Rows, check_overlap, complete_splits, record_splits

# What is measured: the splits of which no sample may have been trained on.
MEASURED = {"fit": "val", "validate": "val", "test": "test", "predict": "test"}


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
