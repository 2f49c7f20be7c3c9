"""Tries whether a loss takes what a system gives it; weighs the classes in it."""

from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional


def try_loss(loss: Any, classes: int) -> None:
    """Some losses take other targets, or log-probabilities, and would be wrong without a word.

    Args:
        loss: of logits (N, classes) and indices (N,), or without classes of numbers (N,) and targets.
        classes: how many.

    Raises:
        MisconfigurationException: it does not take these, or is no mean.
    """
    if getattr(loss, "reduction", "mean") != "mean":
        raise MisconfigurationException("loss: its reduction must be mean, the batch's")
    targets = right = torch.tensor([-1.0, 1.0])
    wrong, takes = [-right, 2 * right, 0 * right], "numbers and numbers"
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
        raise MisconfigurationException(
            f"loss: {type(loss).__name__} does not take {takes}{reason}"
        )


def weigh(system: Any, weights: list[float] | str | None, counts: Tensor | None = None) -> None:
    """Gives the loss of a system, and its checkpoints, the weights of the classes. `balanced` ones are
    the less, the more often a class is there, and need the counts.

    Raises:
        MisconfigurationException: the loss takes none.
    """
    if weights and not hasattr(system.criterion, "weight"):
        kind = type(system.criterion).__name__
        raise MisconfigurationException(f"class_weights: {kind} has no argument weight")
    if weights == "balanced" and counts is not None:
        counts = counts.clamp(min=1)
        weights = (counts.sum() / len(counts) / counts).tolist()
    if isinstance(weights, list):
        system.criterion.weight = torch.tensor(weights, device=system.device)
        system.hparams["class_weights"] = weights
