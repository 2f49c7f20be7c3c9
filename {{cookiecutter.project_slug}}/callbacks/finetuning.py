"""Trains the head first, the backbone later."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning


class Finetuning(BackboneFinetuning):
    """Lightning's, which leaves the backbone frozen in a fit that continues after it was not."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        optimized = {id(parameter) for group in groups for parameter in group["params"]}
        if all(id(parameter) in optimized for parameter in pl_module.backbone.parameters()):
            self.make_trainable(pl_module.backbone)
