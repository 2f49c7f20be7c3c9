"""Generative adversarial network (Goodfellow et al. 2014) with the non-saturating loss."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from models.frechet import Moments, frechet_distance
from models.system import System

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W) in [-1, 1], labels that are not used


class GAN(System):
    """Trains a generator against a discriminator, each with its own optimizer.

    Args:
        network: has a ``generator`` from (B, latent_dim) noise to (B, C, H, W) images in [-1, 1], a
            ``discriminator`` from images to (B, 1) logits, and ``latent_dim``.
        num_samples: images generated for the Fréchet distance.
    """

    monitor = "val/frechet"
    parts = ("network.generator", "network.discriminator")

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.Adam,
        lr: float = 2e-4,
        scheduler_monitor: str = "val/frechet",
        num_samples: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, optimizer, lr, scheduler_monitor=scheduler_monitor, **kwargs)
        if self.metrics:
            raise MisconfigurationException("metrics: a gan has no targets to compare with")
        self.automatic_optimization = False
        self.num_samples = num_samples

    def noise(self, count: int, seed: int | None = None) -> Tensor:
        shape = count, self.network.latent_dim
        if seed is None:
            return torch.randn(shape, device=self.device, dtype=self.dtype)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(self.device, self.dtype)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        real, _ = batch
        generator, discriminator = self.network.generator, self.network.discriminator
        generator_optimizer, discriminator_optimizer = self.optimizers()
        # All processes draw the same numbers: each takes its own share of them.
        rank, processes = self.trainer.global_rank, self.trainer.world_size
        fake = generator(self.noise(processes * len(real))[rank::processes])

        discriminator_loss = (
            F.softplus(-discriminator(self.to_weight_dtype(real)))
            + F.softplus(discriminator(fake.detach()))
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
        if self.should_log(self.global_step // 2):
            losses = {"generator_loss": generator_loss, "discriminator_loss": discriminator_loss}
            self.log_dict({f"train/{name}": loss for name, loss in losses.items()})
        return generator_loss.detach() + discriminator_loss.detach()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.step_schedulers("epoch")

    def step_schedulers(self, interval: str) -> None:
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == interval and not isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step()

    def configure_optimizers(self) -> list[dict[str, Any]]:
        configs = super().configure_optimizers()
        if isinstance(configs[0]["optimizer"], LBFGS):
            raise MisconfigurationException("LBFGS makes its steps itself; a gan needs another one")
        return configs

    def on_validation_epoch_start(self) -> None:
        self.real: dict[str, Moments] = {}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        stage = self.stage_of(dataloader_idx)
        self.real.setdefault(stage, Moments()).update(batch[0])

    def on_validation_epoch_end(self) -> None:
        fake = Moments()
        # The same noise in each epoch and on each process: only the generator changes the metric.
        for noise in self.noise(self.num_samples, seed=0).split(256):
            fake.update(self(noise))
        for stage, real in self.real.items():
            real.sums = self.trainer.strategy.reduce(real.sums, reduce_op="sum")
            distance = frechet_distance(real, fake)
            self.log(f"{stage}/frechet", distance, prog_bar=True, sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """New images (B, C, H, W) in [-1, 1], and the discriminator's logits (B,) of them."""
        # A sample in a table belongs to its row, on whichever process that is.
        if indices := self.trainer.predict_loop.current_batch_indices:
            noise = torch.cat([self.noise(1, seed=i) for i in indices])
        else:
            noise = self.noise(len(batch[0]))
        images = self(noise)
        score = self.network.discriminator(self.to_weight_dtype(images)).squeeze(1)
        return {"score": score, "image": images}

    def export_inputs(self, count: int) -> dict[str, Tensor]:
        """What an exported file takes, since it is no batch of the data."""
        return {"noise": self.noise(count)}

    def export_step(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"images": self(inputs["noise"])}

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Samples, from the same noise each time."""
        images = self(self.noise(len(batch[0]), seed=0))
        return images, [""] * len(images)
