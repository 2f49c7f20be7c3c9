"""Modules as a checkpoint may hold them: their class, plain values and tensors."""

from enum import Enum
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import nn

from engine.errors import UserError

SEQUENCES = (list, tuple, torch.Size)  # and no other kinds of tuples, whose class a file would name
PLAIN = (bool, int, float, str, type(None), torch.dtype)


def describe(module: nn.Module) -> dict[str, Any]:
    """A module as a checkpoint may hold it: its class, its plain attributes, its tensors and parts.
    Raises a UserError if an attribute is none of these."""
    own = {k: v for k, v in vars(module).items() if k not in vars(nn.Module())}
    for name, value in own.items():
        if not is_plain(value):
            kind = type(module).__name__
            raise UserError(f"{kind}.{name} is a {type(value).__name__}: no checkpoint can hold it")
    # Such as the bias of a layer without one.
    absent = (n for n in dir(module) if not hasattr(type(module), n) and getattr(module, n) is None)
    parameters = dict(module.named_parameters(recurse=False))
    tensors = dict(module.named_buffers(recurse=False)) | parameters
    return {
        "class_path": f"{type(module).__module__}.{type(module).__qualname__}",
        "attributes": own | dict.fromkeys(absent),
        "tensors": {name: tensor.detach() for name, tensor in tensors.items()},
        "trained": [name for name, one in parameters.items() if one.requires_grad],
        "kept": [name for name in module.state_dict() if name in tensors],
        "parts": {name: describe(part) for name, part in module.named_children()},
    }


def rebuild(description: dict[str, Any]) -> nn.Module:
    """The module of a description; its tensors are buffers, unless they are trained."""
    kind = resolve_name(description["class_path"])
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    vars(module).update(description["attributes"])
    for name, tensor in description["tensors"].items():
        if name in description["trained"]:
            module.register_parameter(name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor, persistent=name in description["kept"])
    for name, part in description["parts"].items():
        module.add_module(name, rebuild(part))
    return module


def is_plain(value: Any) -> bool:
    if type(value) in SEQUENCES:
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return isinstance(value, PLAIN) and not isinstance(value, Enum)


def add_fixed(settings: dict[str, Any], frame: Any) -> list[str]:
    """Adds what a class has set itself of its parents' arguments, of which the command line knows
    nothing; `frame` is that of the first parent's `__init__`. Gives their names: the class does not
    take them, so no checkpoint is to hold them."""
    found = collect_init_args(frame, [], classes=(LightningDataModule,))
    fixed = {name: value for one in found for name, value in one.items() if name not in settings}
    settings.update(fixed)
    return list(fixed)


def keep_plain(settings: dict[str, Any]) -> None:
    """Turns paths into text, and leaves out what is not plain, in place."""
    for name, value in list(settings.items()):
        if isinstance(value, Path):
            settings[name] = str(value)
        elif not is_plain(value):
            del settings[name]
