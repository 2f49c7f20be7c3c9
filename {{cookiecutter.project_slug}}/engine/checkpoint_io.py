"""How a checkpoint is written: whole or not at all, and of what can be read again."""

import os
from collections import OrderedDict
from copy import copy
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from engine.compat import load_sharded
from engine.errors import UserError
from engine.files import written_whole
from engine.modules import SEQUENCES, is_plain


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames: a kill leaves the old one whole. Reads sharded ones."""

    is_read = False  # whether one of this fit can be; callbacks may come to hold something else

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        path = Path(path)
        checkpoint = without_numpy(checkpoint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if not self.is_read or foreign(checkpoint.get("callbacks", {})):
                    torch.load(temporary, map_location="meta", weights_only=True, mmap=True)
                    self.is_read = True
        except (PicklingError, UnpicklingError, AttributeError, TypeError) as error:
            raise unreadable(checkpoint, error) from error

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path).is_dir():
            if not Path(path, "meta.pt").exists():
                raise UserError(
                    f"{path} was saved by DeepSpeed; convert_zero_checkpoint_to_fp32_state_dict of "
                    "lightning.pytorch.utilities.deepspeed makes one file of it"
                )
            return load_sharded(Path(path))
        return super().load_checkpoint(path, map_location, weights_only)


def without_numpy(value: Any) -> Any:
    """The same with Python's numbers and torch's tensors in the place of NumPy's, in plain dicts
    and lists: reading a checkpoint of those would run code of the file's choice."""
    if isinstance(value, dict):
        items = {without_numpy(key): without_numpy(item) for key, item in value.items()}
        if isinstance(value, OrderedDict):  # of a module, it has attributes as well
            value = copy(value)
            value.update(items)
            return value
        return items
    if type(value) in (list, tuple):
        return type(value)(map(without_numpy, value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))
    return value


def unreadable(checkpoint: dict[str, Any], error: Exception) -> UserError:
    """Says what of a checkpoint, such as a lambda, cannot be written, or not be read again."""
    parts = {**checkpoint, **checkpoint.get("callbacks", {})}
    parts.pop("callbacks", None)
    names = (f"{part}: {name}" for part, value in parts.items() for name in foreign(value))
    return UserError(
        f"The checkpoint would hold what cannot be read again: {', '.join(names) or error}. Keep "
        "numbers, text, tensors, lists and dicts of them in state_dict"
    )


def foreign(value: Any, key: str = "") -> list[str]:
    """The entries of a state that are neither plain values nor tensors, with their classes."""
    pairs: Any
    if isinstance(value, dict):
        pairs = value.items()
    elif type(value) in SEQUENCES:
        pairs = enumerate(value)
    elif isinstance(value, torch.Tensor) or is_plain(value):
        return []
    else:
        return [f"{key} ({type(value).__module__}.{type(value).__qualname__})"]
    return [one for name, item in pairs for one in foreign(item, f"{key}.{name}".strip("."))]
