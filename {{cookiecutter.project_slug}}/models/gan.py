"""Generative adversarial network (Goodfellow et al. 2014) with the non-saturating loss."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from models.frechet import Moments, frechet_distance

Batch = tuple[Tensor, Tensor]  # (B, C, H, W) floats in [-1, 1], labels that are not used


class GAN(LightningModule):
    """Trains a generator against a discriminator, each with its own optimizer.

    Args:
        network: has a ``generator`` from (B, latent_dim) noise to (B, C, H, W) images in [-1, 1], a
            ``discriminator`` from images to (B, 1) logits, and ``latent_dim``.
        optimizer: makes each optimizer from its parameters and the learning rate.
        lr: learning rate of both.
        scheduler: makes a learning-rate scheduler from each optimizer.
        scheduler_interval: step it after each ``step`` or ``epoch``; by default the scheduler's own
            ``interval`` attribute or else ``epoch``.
        scheduler_monitor: metric for schedulers that need one (``ReduceLROnPlateau``), which look
            at it after each epoch with a validation.
        num_samples: images generated for the Fréchet distance and by ``predict``.
        compile: compile both networks with ``torch.compile``; checkpoints stay the same.
    """

    network: Any  # nn.Module does not know the types of its parts

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.Adam,
        lr: float = 2e-4,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        scheduler_monitor: str = "val/frechet",
        num_samples: int = 1000,
        compile: bool = False,
    ) -> None:
        super().__init__()
        # The command line gives its configuration to the checkpoint, which can then rebuild all of
        # this. Objects given from Python stay out: a checkpoint holds no pickled code.
        objects = () if _given_hyperparameters.get() else ("network", "optimizer", "scheduler")
        self.save_hyperparameters(ignore=objects)
        self.automatic_optimization = False
        self.network = network
        self.optimizer = optimizer
        self.lr = lr
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.num_samples = num_samples
        self.compile_network = compile

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent_dim) noise -> (B, C, H, W) images in [-1, 1]."""
        return self.network(noise)

    def noise(self, count: int, seed: int | None = None) -> Tensor:
        shape = count, self.network.latent_dim
        if seed is None:
            return torch.randn(shape, device=self.device, dtype=self.dtype)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(self.device, self.dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, _ = batch
        generator, discriminator = self.network.generator, self.network.discriminator
        generator_optimizer, discriminator_optimizer = self.optimizers()
        # All processes draw the same numbers: each takes its own share of them.
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        fake = generator(self.noise(processes * len(real))[rank::processes])

        discriminator_loss = (
            F.softplus(-discriminator(real)) + F.softplus(discriminator(fake.detach()))
        ).mean()
        discriminator_optimizer.zero_grad()
        self.manual_backward(discriminator_loss)
        discriminator_optimizer.step()

        self.toggle_optimizer(generator_optimizer)  # the discriminator's weights get no gradients
        generator_loss = F.softplus(-discriminator(fake)).mean()
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        self.untoggle_optimizer(generator_optimizer)

        self.step_schedulers("step")
        # Only what the logger or an epoch's end will read: to log each step costs a quarter of the
        # speed, and `prog_bar` would read it from the device each time.
        step, interval = self.global_step // 2, max(self.trainer.log_every_n_steps, 1)
        if step % interval == 0 or self.trainer.is_last_batch:
            losses = {"generator_loss": generator_loss, "discriminator_loss": discriminator_loss}
            self.log_dict({f"train/{k}": v for k, v in losses.items()})

    def on_train_epoch_end(self) -> None:
        self.step_schedulers("epoch")

    def on_validation_epoch_start(self) -> None:
        self.real = Moments()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.real.update(batch[0])

    def on_validation_epoch_end(self) -> None:
        self.log_frechet("val")

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step

    def on_test_epoch_end(self) -> None:
        self.log_frechet("test")

    def log_frechet(self, stage: str) -> None:
        fake = Moments()
        # The same noise in each epoch and on each process: only the generator changes the metric.
        for noise in self.noise(self.num_samples, seed=0).split(256):
            fake.update(self(noise))
        self.real.sums = self.trainer.strategy.reduce(self.real.sums, reduce_op="sum")
        distance = frechet_distance(self.real, fake)
        self.log(f"{stage}/frechet", distance, prog_bar=True, sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """As many new images (B, C, H, W) in [-1, 1] as the batch has, and the discriminator's
        logits (B,) of them."""
        # A sample in a table belongs to its row, on whichever process that is.
        if batches := self.trainer.predict_loop.epoch_batch_indices[0]:
            noise = torch.cat([self.noise(1, seed=i) for i in batches[-1]])
        else:
            noise = self.noise(len(batch[0]))
        samples = self(noise)
        return {"score": self.network.discriminator(samples).squeeze(1), "image": samples}

    def configure_optimizers(self) -> list[dict[str, Any]]:
        networks = self.network.generator, self.network.discriminator
        trained = [[p for p in network.parameters() if p.requires_grad] for network in networks]
        optimizers = [self.optimizer(parameters, self.lr) for parameters in trained]
        if isinstance(optimizers[0], LBFGS):
            raise MisconfigurationException("LBFGS makes its steps itself; a gan needs another one")
        configs: list[dict[str, Any]] = [{"optimizer": optimizer} for optimizer in optimizers]
        if self.scheduler is None:
            return configs
        for config in configs:
            scheduler = self.scheduler(config["optimizer"])
            interval = self.scheduler_interval or getattr(scheduler, "interval", "epoch")
            config["lr_scheduler"] = {"scheduler": scheduler, "interval": interval}
        return configs

    def step_schedulers(self, interval: str) -> None:
        for config in (c for c in self.trainer.lr_scheduler_configs if c.interval == interval):
            if not isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step()
                continue
            if (self.current_epoch + 1) % (self.trainer.check_val_every_n_epoch or 1):
                continue
            metrics = self.trainer.callback_metrics
            if self.scheduler_monitor in metrics:
                config.scheduler.step(metrics[self.scheduler_monitor])
            elif "val/frechet" in metrics or not self.trainer.enable_validation:
                raise MisconfigurationException(
                    f"scheduler_monitor is {self.scheduler_monitor}, which is not logged. What is: "
                    + ", ".join(metrics)
                )

    def on_train_start(self) -> None:
        # Not earlier: this makes the data loaders, which must find the position of a resumed fit.
        for config in self.trainer.lr_scheduler_configs:
            if getattr(config.scheduler, "total_steps", 0) is None:
                steps = self.trainer.estimated_stepping_batches
                if self.trainer.max_steps > 0:  # of both optimizers
                    steps = min(steps, self.trainer.max_steps // 2)
                config.scheduler.total_steps = steps if steps > 0 else None  # -1: not known

    def setup(self, stage: str) -> None:
        if isinstance(self.trainer.strategy, DDPStrategy):  # each backward pass is of one network
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        if self.compile_network:
            self.network.generator.compile()  # in place: the names of the weights stay
            self.network.discriminator.compile()

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Samples, from the same noise each time, for the `Pictures` callback."""
        samples = self(self.noise(len(batch[0]), seed=0))
        return samples, [""] * len(samples)
