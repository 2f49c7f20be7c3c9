"""Has a fit go on at the sample where it stopped, with its random states and frozen weights."""

import random
import sys
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from engine.errors import is_own

OF_A_STEP = ("training", "batch_weight")  # attributes that each step sets anew


class ExactResume(Callback):
    """With it a continued fit draws the numbers that the uninterrupted one would have drawn. With
    batches of another size it takes the rest of the epoch: Lightning counts them, not samples."""

    before: dict[str, Tensor] = {}  # `attributes` at the start
    frozen: list[bool] = []  # each parameter, at the save

    def state_dict(self) -> dict[str, Any]:
        numpy: Any = np.random.get_state()
        # Tensors: each number of a list would take as long to write.
        version, words, normal = random.getstate()
        _, keys, *rest = numpy
        state = {
            "python": [version, torch.tensor(words), normal],
            "numpy": [torch.from_numpy(keys.astype(np.int64)), *rest],
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        version, words, normal = state_dict["python"]
        random.setstate((version, tuple(words.tolist()), normal))
        keys, *rest = state_dict["numpy"]
        np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state_dict["torch"].cpu())
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state(state_dict["cuda"].cpu())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = attributes(pl_module)
        # A callback that freezes at the start may have unfrozen before the save.
        for parameter, frozen in zip(pl_module.parameters(), self.frozen, strict=False):
            if parameter.requires_grad == frozen:
                parameter.requires_grad_(not frozen)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = attributes(pl_module) if self.before else {}
        if changed := [n for n, one in self.before.items() if n in now and not one.equal(now[n])]:
            lost = f"Training changes {', '.join(changed)}, which no checkpoint holds"
            rank_zero_warn(f"{lost}: keep what matters in a tensor, by register_buffer")
            self.before = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = self.before and attributes(pl_module)  # with numbers of the validation's own

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["batches"] = batches_of(trainer)
        checkpoint["frozen"] = [not one.requires_grad for one in pl_module.parameters()]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.frozen = checkpoint.get("frozen", [])
        size, processes = checkpoint.get("batches", (0, 0))
        given = checkpoint.get("datamodule_hyper_parameters", {}).get("batch_size")
        same = size and given == trainer.datamodule.hparams.get("batch_size")
        if same and (isinstance(given, int) or processes == trainer.world_size):
            trainer.datamodule.batch_size = size  # which a callback may have changed
        before, now = size * processes, prod(batches_of(trainer))
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


def attributes(system: LightningModule) -> dict[str, Tensor]:
    """The numbers and tensors that a system and its parts have beside parameters and buffers."""
    # Parts of a library know how to save what matters; of a preparation all is saved.
    modules = {type(part).__module__ for part in system.modules()}
    own = {m for m in modules if is_own(getattr(sys.modules.get(m), "__file__", None) or "")}
    found = {
        f"{type(part).__name__}.{key}": value if isinstance(value, Tensor) else float(value)
        for name, part in system.named_modules()
        if type(part).__module__ in own and not name.startswith("preparation")
        for key, value in vars(part).items()
        if isinstance(value, int | float | Tensor) and key[0] != "_" and key not in OF_A_STEP
    }
    tensors = {name: torch.as_tensor(value).detach() for name, value in found.items()}
    return {name: one.to("cpu", copy=True) for name, one in tensors.items() if not one.is_meta}


def batches_of(trainer: Trainer) -> tuple[int, int]:
    # The size, 0 where the data module does not say, and how many in a step: one of each process.
    return getattr(trainer.datamodule, "batch_size", 0), trainer.world_size
