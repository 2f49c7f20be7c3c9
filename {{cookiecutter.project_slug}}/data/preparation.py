"""How a raw batch becomes what a system takes, in fit, `predict` and exported files alike."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from engine.errors import UserError

PLAIN = (bool, int, float, str, type(None), torch.dtype)


class ScaleBytes(nn.Module):
    """uint8 images of a batch (images, ...) become floats in [-1, 1]; float images stay as they are.

    Raises:
        ValueError: integers of another kind, whose range is not known.
    """

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        if images.dtype == torch.uint8:
            images = images.float().div_(127.5).sub_(1)
        elif not images.is_floating_point():
            raise ValueError(
                f"Images of {images.dtype}: give bytes (0 to 255), or floats as they are"
            )
        return images, *others


class Standardize(nn.Module):
    """Numbers (B, ...) of a batch (numbers, ...), less their mean and divided by their deviation.

    Args:
        mean: of each number, of the training samples.
        std: their standard deviation; numbers that never change are divided by one.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", torch.where(std > 0, std, 1.0))

    def forward(self, batch: Any) -> Any:
        numbers, *others = batch
        return (numbers - self.mean) / self.std, *others


def describe(module: nn.Module) -> dict[str, Any]:
    """A module as a checkpoint may hold it: its class, its plain attributes, its tensors and parts.

    Raises:
        UserError: an attribute is neither plain nor a tensor or module.
    """
    own = {k: v for k, v in vars(module).items() if k not in vars(nn.Module())}
    for name, value in own.items():
        if not is_plain(value):
            kind = type(module).__name__
            raise UserError(f"{kind}.{name} is a {type(value).__name__}: no checkpoint can hold it")
    tensors = [*module.named_buffers(recurse=False), *module.named_parameters(recurse=False)]
    return {
        "class_path": f"{type(module).__module__}.{type(module).__qualname__}",
        "attributes": own,
        "tensors": {name: tensor.detach() for name, tensor in tensors},
        "parts": {name: describe(part) for name, part in module.named_children()},
    }


def rebuild(description: dict[str, Any]) -> nn.Module:
    """The module of a description; its tensors are buffers."""
    path, _, name = description["class_path"].rpartition(".")
    kind = getattr(import_module(path), name)
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    vars(module).update(description["attributes"])
    for name, tensor in description["tensors"].items():
        module.register_buffer(name, tensor)
    for name, part in description["parts"].items():
        module.add_module(name, rebuild(part))
    return module


def is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return isinstance(value, PLAIN)
