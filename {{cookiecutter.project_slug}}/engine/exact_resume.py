"""Has a fit go on with the random states that it had, at the sample where it stopped."""

import random
from math import ceil
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class ExactResume(Callback):
    """With it a continued fit draws the numbers that the uninterrupted one would have drawn. One that
    goes on in mid-epoch with larger or smaller batches takes the rest of the epoch: Lightning counts
    batches, the sampler samples."""

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

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["samples_in_a_step"] = samples_in_a_step(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        before, now = checkpoint.get("samples_in_a_step"), samples_in_a_step(trainer)
        if before and now and "loops" in checkpoint:
            place = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            if not place["is_last_batch"]:
                batches = place["current"]["ready"]
                more = ceil(batches * before / now) - batches
                place["current"] = {name: n + more for name, n in place["current"].items()}
        if "loops" in checkpoint and trainer.state.fn == "fit":
            # Lightning does so after `configure_optimizers`, which makes the loaders if it asks for
            # the length of the fit: they would begin anew.
            trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])


def samples_in_a_step(trainer: Trainer) -> int:
    """Of all processes; 0 where the data module does not say."""
    return getattr(trainer.datamodule, "batch_size", 0) * trainer.world_size
