"""Reconstruction with any network that has an encoder and a decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from models.system import System

Batch = tuple[Tensor, Tensor]  # inputs (B, ...), labels that are not used


class Autoencoder(System):
    """Trains a network to reconstruct its input, with the mean squared error.

    Args:
        network: has an ``encoder`` from inputs (B, ...) to embeddings (B, D), and a ``decoder``.
        loss: mean loss of reconstructions and inputs (B, ...), by default the squared error.
    """

    def __init__(self, network: nn.Module, loss: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.criterion = loss or nn.MSELoss()
        if loss:
            from engine import losses  # here, so that this file and system.py run alone

            losses.try_torchs(loss, 0)

    def loss(self, batch: Batch) -> Tensor:
        inputs, _ = batch
        reconstruction = self(inputs)
        self.update_metrics(reconstruction, inputs)
        return self.criterion(reconstruction, inputs)

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Squared error (B,), embedding (B, D) and reconstruction (B, ...)."""
        inputs, _ = batch
        embedding = self.network.encoder(self.to_weight_dtype(inputs))
        reconstruction = self.network.decoder(embedding)
        error = (reconstruction - inputs).square().flatten(1).mean(dim=1)
        return {"error": error, "embedding": embedding, "reconstruction": reconstruction}

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images, each beside its reconstruction."""
        images, _ = batch
        pairs = torch.stack([images, self(images)], dim=1).flatten(0, 1)
        return pairs, ["image", "reconstruction"] * len(images)
