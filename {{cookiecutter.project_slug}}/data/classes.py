"""What data sets for classification share: each sample has one class."""

from typing import Any

import torch

from data.base import Data
from engine.errors import UserError
from engine.loaders import samples_of
from engine.splits import is_classes


class ClassData(Data):
    """Base of the sets with classes: a subclass sets `class_names`, and its samples have `labels`
    (N,), class indices, -1 where unknown. A batch is (inputs, labels)."""

    class_names: list[str]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def facts(self) -> dict[str, Any]:
        return {"class_names": list(self.class_names), "num_classes": self.num_classes}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        labels = getattr(samples_of(self.splits.get("train")), "labels", None)
        count = self.facts.get("num_classes")
        if count and is_classes(labels) and (most := int(torch.as_tensor(labels).max())) >= count:
            raise UserError(f"A label is {most}: those of {count} classes are 0 to {count - 1}.")

    def adopt(self, facts: dict[str, Any]) -> None:
        self.class_names = facts.get("class_names", self.class_names)  # a subclass may have none

    @property
    def predict_columns(self) -> dict[str, list]:
        """The true classes of what is predicted, if they are known."""
        split = self.splits["predict"]
        labels = getattr(samples_of(split), "labels", None)
        if labels is None or labels.ndim > 1 or len(labels) and labels.min() < 0:
            return {}
        known = labels[split.indices].tolist()
        return {"label": known, "label_name": [self.class_names[i] for i in known]}
