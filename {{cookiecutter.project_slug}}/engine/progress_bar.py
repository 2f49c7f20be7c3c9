"""The progress bar, with the losses of the training."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's, which reads the losses when it is drawn. Logged with ``prog_bar=True``, they would
    be read after every step, and each time the device would be waited for."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = trainer.callback_metrics.items()
        losses = {k: v.item() for k, v in metrics if k.startswith("train/") and k.endswith("loss")}
        return losses | super().get_metrics(trainer, pl_module)
