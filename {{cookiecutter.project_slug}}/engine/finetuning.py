"""Lightning's callback that trains the head first, mended for a fit that goes on."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning


class Finetuning(BackboneFinetuning):
    """Trains the head first, the ``backbone`` of the network later; a fit that continues leaves it as
    it was."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning looks for it in the system. No part of that: its weights have one name only.
        network: Any = pl_module.network
        vars(pl_module)["backbone"] = network.get_submodule("backbone")
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        optimized = {id(parameter) for group in groups for parameter in group["params"]}
        if all(id(parameter) in optimized for parameter in pl_module.backbone.parameters()):
            self.make_trainable(pl_module.backbone)
