"""The progress bar, with the losses of the training; in a file or a pipe a line for each epoch."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's, which reads the losses when it is drawn. Logged with ``prog_bar=True``, they
    would be read after every step, and each time the device would be waited for."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.prints = self.is_enabled and not sys.stdout.isatty()
        if self.prints:
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = trainer.callback_metrics.items()
        losses = {k: v.item() for k, v in metrics if k.startswith("train/") and k.endswith("loss")}
        shown = losses | super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the run's, which is always the same
        return shown

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.prints and trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = self.get_metrics(trainer, pl_module).items()
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values)
            print(f"Epoch {trainer.current_epoch}: {shown}", flush=True)
