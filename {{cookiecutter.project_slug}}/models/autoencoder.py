"""Image reconstruction with any network that has an encoder and a decoder."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

Batch = tuple[Tensor, Tensor]  # (B, C, H, W) floats in [-1, 1], labels that are not used


class Autoencoder(LightningModule):
    """Trains a network to give back its input, by the mean squared error.

    Args:
        network: has an ``encoder`` from (B, C, H, W) images to (B, D) embeddings and a ``decoder``
            back to images.
        optimizer: makes the optimizer from the parameters and the learning rate.
        lr: learning rate.
        scheduler: makes the learning-rate scheduler from the optimizer.
        scheduler_interval: step it after each ``step`` or ``epoch``; by default the scheduler's own
            ``interval`` attribute or else ``epoch``.
        scheduler_monitor: metric for schedulers that need one (``ReduceLROnPlateau``), which look
            at it after each epoch with a validation.
        compile: compile the network with ``torch.compile``; checkpoints stay the same.
    """

    network: Any  # nn.Module does not know the types of its parts

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.AdamW,
        lr: float = 1e-3,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        scheduler_monitor: str = "val/loss",
        compile: bool = False,
    ) -> None:
        super().__init__()
        # The command line gives its configuration to the checkpoint, which can then rebuild all of
        # this. Objects given from Python stay out: a checkpoint holds no pickled code.
        objects = () if _given_hyperparameters.get() else ("network", "optimizer", "scheduler")
        self.save_hyperparameters(ignore=objects)
        self.network = network
        self.optimizer = optimizer
        self.lr = lr
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.compile_network = compile

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats in [-1, 1] -> their reconstructions, the same shape."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, _ = batch
        loss = F.mse_loss(self(images), images)
        # Only what the logger or an epoch's end will read: to log each step costs a quarter of the
        # speed, and `prog_bar` would read it from the device each time.
        next_step, interval = self.global_step + 1, max(self.trainer.log_every_n_steps, 1)
        if next_step % interval == 0 or self.trainer.is_last_batch:
            self.log("train/loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.sums = torch.zeros(2, device=self.device)  # squared error of an image, images

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, _ = batch
        errors = (self(images) - images).float().square().flatten(1).mean(dim=1)
        self.sums += torch.stack([errors, torch.ones_like(errors)]).sum(dim=1)

    def on_validation_epoch_end(self) -> None:
        self.log_mean("val")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self.log_mean("test")

    def log_mean(self, stage: str) -> None:
        """Logs once for all images of all processes: logging costs more than a small step."""
        error, count = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        self.log(f"{stage}/loss", error / count, prog_bar=True, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Reconstruction error (B,), embedding (B, D) and, of the first batch, the images beside their
        reconstructions (B, C, H, 2 W)."""
        images, _ = batch
        embedding = self.network.encoder(images)
        reconstructions = self.network.decoder(embedding)
        errors = (reconstructions - images).square().flatten(1).mean(dim=1)
        found = {"error": errors, "embedding": embedding}
        if batch_idx == 0:
            found["picture"] = torch.cat([images, reconstructions], dim=3)
        return found

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = self.optimizer(trained, self.lr)
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        interval = self.scheduler_interval or getattr(scheduler, "interval", "epoch")
        config: Any = {"scheduler": scheduler, "interval": interval}
        config["monitor"] = self.scheduler_monitor
        if interval == "epoch":
            config["reduce_on_plateau"] = False  # on_train_epoch_end does
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any) -> None:
        if metric is not None or not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        # Lightning would do this after the checkpoint: a fit that continues would miss a step.
        if (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1):
            return
        metrics = self.trainer.callback_metrics
        for config in self.trainer.lr_scheduler_configs:
            if config.interval != "epoch" or not isinstance(config.scheduler, ReduceLROnPlateau):
                continue
            if self.scheduler_monitor in metrics:
                config.scheduler.step(metrics[self.scheduler_monitor])
            elif "val/loss" in metrics or not self.trainer.enable_validation:
                raise MisconfigurationException(
                    f"scheduler_monitor is {self.scheduler_monitor}, which is not logged. What is: "
                    + ", ".join(metrics)
                )

    def on_train_start(self) -> None:
        # Not earlier: this makes the data loaders, which must find the position of a resumed fit.
        for config in self.trainer.lr_scheduler_configs:
            if getattr(config.scheduler, "total_steps", 0) is None:
                steps = self.trainer.estimated_stepping_batches
                config.scheduler.total_steps = steps if steps > 0 else None  # -1: not known

    def setup(self, stage: str) -> None:
        if self.compile_network:
            self.network.compile()  # in place: no `_orig_mod.` in the names of the weights

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images, each beside its reconstruction, for the `Pictures` callback."""
        images, _ = batch
        pairs = torch.stack([images, self(images)], dim=1).flatten(0, 1)
        return pairs, ["image", "reconstruction"] * len(images)
