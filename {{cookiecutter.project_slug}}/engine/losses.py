"""Tries whether a loss takes what a system gives it; weighs the classes in it."""

from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional


def prepare(system: Any, kind: Any, classes: int | None) -> None:
    """Weighs the classes in the loss of a system; tries it on what `kind.loss` gives it."""
    weigh(system, system.class_weights)
    if type(system).loss is kind.loss:
        try_loss(system.criterion, classes)


def try_loss(loss: Any, classes: int | None) -> None:
    """Raises MisconfigurationException if a loss is no mean, or does not take logits (N, classes)
    and indices (N,), or of 0 classes numbers (N,) and targets (N,); None: how many is not known.
    Some take other targets, or log-probabilities, and would be wrong without a word."""
    if getattr(loss, "reduction", "mean") != "mean":
        raise MisconfigurationException("loss: its reduction must be mean, the batch's")
    if classes is None:
        weight = getattr(loss, "weight", None)
        classes = 3 if weight is None else len(weight)
    targets = right = torch.tensor([-1.0, 1.0])
    # The last two: that of counts, of which the logarithm is predicted, takes no scaled numbers.
    wrong = [-right, 2 * right, 0 * right, right + 0.5, right - 0.5]
    takes = "numbers and numbers"
    if classes:
        targets = torch.arange(classes + 1) % classes  # one more: else a loss might broadcast them
        right = 9.0 * functional.one_hot(targets)
        wrong, takes = [-right], f"logits of {classes} classes and indices"
    reason = ""
    try:
        sensible = all(loss(right, targets) < loss(other, targets) for other in wrong)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        sensible, reason = False, f": {error}"
    if not sensible or isinstance(loss, nn.NLLLoss):
        kind = type(loss).__name__
        raise MisconfigurationException(f"loss: {kind} does not take {takes}{reason}")


def try_torchs(loss: Any, classes: int | None) -> None:
    """The same of a loss of torch's alone: one's own may need the shapes of real batches."""
    if type(loss).__module__.startswith("torch."):
        try_loss(loss, classes)


def weigh(system: Any, weights: list[float] | str | None) -> None:
    """Gives the loss of a system, and its checkpoints, the weights of the classes."""
    if weights and not hasattr(system.criterion, "weight"):
        kind = type(system.criterion).__name__
        raise MisconfigurationException(f"class_weights: {kind} has no argument weight")
    if isinstance(weights, list):
        system.criterion.weight = torch.tensor(weights, device=system.device)
        system.hparams["class_weights"] = weights


def balance(system: Any, data: Any) -> None:
    """Weighs a class the less, the more often it is there in the training data."""
    counts = getattr(data, "class_counts", None)
    if counts is None:
        kind = type(data).__name__
        raise MisconfigurationException(f"class_weights: {kind} has no class_counts; give numbers")
    counts = counts.clamp(min=1)
    weigh(system, (counts.sum() / len(counts) / counts).tolist())
