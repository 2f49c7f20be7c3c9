"""Lightning's callback that trains the head first, for a system whose network has the backbone."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning


class Finetuning(BackboneFinetuning):
    """Trains the head first, the ``backbone`` of the network later."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning looks for it in the system. No part of that: its weights have one name only.
        network: Any = pl_module.network
        vars(pl_module)["backbone"] = network.get_submodule("backbone")
        super().setup(trainer, pl_module, stage)
