"""Keeps the random states in the checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback


class RandomState(Callback):
    """With it a continued fit draws the numbers that the uninterrupted one would have drawn."""

    def state_dict(self) -> dict[str, Any]:
        numpy: Any = np.random.get_state()
        _, keys, *rest = numpy
        state = {
            "python": random.getstate(),
            "numpy": [keys.tolist(), *rest],  # a checkpoint holds no arrays of NumPy
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        version, keys, rest = state_dict["python"]
        random.setstate((version, tuple(keys), rest))
        keys, *rest = state_dict["numpy"]
        np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state_dict["torch"].cpu())
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state(state_dict["cuda"].cpu())
