"""Image classification with any network that maps images to logits."""

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

Batch = tuple[Tensor, Tensor]  # (B, C, H, W) floats in [-1, 1], (B,) class indices


class Classifier(LightningModule):
    """Trains a network with cross entropy.

    Args:
        network: maps (B, C, H, W) images to (B, num_classes) logits.
        optimizer: makes the optimizer from the parameters and the learning rate.
        lr: learning rate.
        scheduler: makes the learning-rate scheduler from the optimizer.
        scheduler_interval: step it after each ``step`` or ``epoch``; by default the scheduler's own
            ``interval`` attribute or else ``epoch``.
        scheduler_monitor: metric for schedulers that need one (``ReduceLROnPlateau``), which look
            at it after each epoch with a validation.
        label_smoothing: see ``torch.nn.functional.cross_entropy``.
        compile: compile the network with ``torch.compile``; checkpoints stay the same.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.AdamW,
        lr: float = 1e-3,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        scheduler_monitor: str = "val/loss",
        label_smoothing: float = 0.0,
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
        self.label_smoothing = label_smoothing
        self.compile_network = compile

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats in [-1, 1] -> (B, num_classes) logits."""
        return self.network(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels, label_smoothing=self.label_smoothing)
        # Only what the logger or an epoch's end will read: to log each step costs a quarter of the
        # speed, and `prog_bar` would read it from the device each time.
        next_step, interval = self.global_step + 1, max(self.trainer.log_every_n_steps, 1)
        if next_step % interval == 0 or self.trainer.is_last_batch:
            self.log("train/loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.sums = torch.zeros(3, device=self.device)  # loss, correct images, images

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        logits = self(images).float()
        loss = F.cross_entropy(logits, labels, reduction="none")
        correct = (logits.argmax(dim=1) == labels).float()
        self.sums += torch.stack([loss, correct, torch.ones_like(loss)]).sum(dim=1)

    def on_validation_epoch_end(self) -> None:
        self.log_means("val")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self.log_means("test")

    def log_means(self, stage: str) -> None:
        """Logs once for all images of all processes: logging costs more than a small step."""
        loss, correct, count = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        metrics = {f"{stage}/loss": loss / count, f"{stage}/acc": correct / count}
        self.log_dict(metrics, prog_bar=True, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Class index (B,) and probabilities (B, num_classes)."""
        probabilities = self(batch[0]).softmax(dim=1)
        return {"prediction": probabilities.argmax(dim=1), "probability": probabilities}

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

    @property
    def backbone(self) -> nn.Module:
        """What Lightning's `BackboneFinetuning` freezes at first."""
        return self.network.get_submodule("backbone")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # The weights are here: rebuilding the network must not download others first.
        network = checkpoint["hyper_parameters"].get("network", {})
        if "pretrained" in network.get("init_args", {}):
            network["init_args"]["pretrained"] = False

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images for the `Pictures` callback, captioned 'prediction', where wrong also '(label)'."""
        images, labels = batch
        names = getattr(self.trainer.datamodule, "class_names", None)
        name = names.__getitem__ if names else str
        predictions = self(images).argmax(dim=1)
        captions = zip(predictions.tolist(), labels.tolist(), strict=True)
        return images, [name(p) if p == t else f"{name(p)}\n({name(t)})" for p, t in captions]
