"""Data sets of your own or of any library, by class path: any torch Dataset will do."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from data.base import Data
from engine.errors import UserError
from engine.samples import samples_like
from engine.splits import Rows, is_classes


class PlainData(Data):
    """Data sets that give a sample at a time: a tensor, number, tuple or dict, or nested. Where val
    or test is missing, it is split off from train, with the same share of every class if train has
    `labels` or `targets` that are an integer for each sample. Iterable data sets keep their own
    order, and cannot be split.

    Args:
        train: the training samples.
        val: the validation samples.
        test: the test samples.
        predict: what to predict; by default test.
        collate_fn: makes a batch of a list of samples; by default torch's `default_collate`.
        known_facts: plain values that networks or systems take by name, such as num_classes.
    """

    reads_files = False  # `read` takes what a predictor in Python is given

    def __init__(
        self,
        train: Dataset,
        val: Dataset | None = None,
        test: Dataset | None = None,
        predict: Dataset | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        known_facts: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given: dict[str, Any] = {"train": train, "val": val, "test": test}
        missing = [name for name, samples in given.items() if samples is None]
        self.given = {name: samples for name, samples in given.items() if samples is not None}
        self.predicted, self.known_facts = predict, known_facts or {}
        self.collate_fn = collate_fn
        if isinstance(train, IterableDataset) and (missing or self.hparams.num_folds):
            instead = f"give {missing} as well" if missing else "there are no folds of it"
            raise UserError(f"{type(train).__name__} is iterable and cannot be split: {instead}")

    @property
    def facts(self) -> dict[str, Any]:
        return self.known_facts

    def load(self) -> tuple[Any, Rows]:
        samples: Any = ConcatDataset(list(self.given.values()))
        numbers = torch.arange(len(samples))
        parts = numbers.split([len(one) for one in self.given.values()])
        samples.labels = self.labels(len(samples))
        samples.ids = [name for one in self.given.values() for name in getattr(one, "ids", [])]
        return samples, dict(zip(self.given, parts, strict=True))

    def labels(self, count: int) -> Tensor | None:
        """Labels (count,) of train, and zeros for the others, since train alone is split."""
        train = self.given["train"]
        labels: Any = getattr(train, "labels", getattr(train, "targets", None))
        if not is_classes(labels) or len(labels) != len(train):  # these words may mean other things
            return None
        labels = torch.as_tensor(labels)
        return torch.cat([labels, labels.new_zeros(count - len(labels))])

    def read(self, source: Any) -> Dataset:
        """A data set, or inputs (N, ...): what else a sample has, such as a label, becomes -1."""
        if isinstance(source, Dataset):
            return source
        name = type(self.given["train"]).__name__
        return samples_like(next(iter(self.given["train"])), source, name)

    def setup(self, stage: str) -> None:
        if isinstance(self.given["train"], IterableDataset):
            self.splits = {**self.given, "predict": self.given["test"]}
        super().setup(stage)
        if self.predicted is not None and not self.reads_other(stage):
            self.splits["predict"] = self.predicted
