"""Language models: what comes next in a text."""

from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.text import Perplexity

from engine import losses
from models.generation import decode, generate, write
from models.system import System


class LanguageModel(System):
    """Trains a network to say of each token what the next one is, by cross entropy.

    Args:
        network: maps token ids (B, T) to logits (B, T, vocab_size); its ``step`` gives those of the
            last token, (B, vocab_size), and a state, with which it goes on.
        characters: what the token ids stand for; without them they are bytes.
        loss: of logits (N, vocab_size) and token ids (N,), in the place of cross entropy.
    """

    byte_counts: Tensor  # of each token id
    monitor = "val/bits_per_byte"

    def __init__(
        self,
        network: nn.Module,
        characters: list[str] | None = None,
        loss: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.criterion = loss or nn.CrossEntropyLoss()
        losses.try_torchs(self.criterion, 3)
        self.characters = characters or []
        sizes = [len(character.encode()) for character in self.characters] or [1] * 256
        sizes[0] = 1  # one that is not known has no fewer bytes
        self.register_buffer("byte_counts", torch.tensor(sizes), persistent=False)

    @property
    def export_dims(self) -> tuple[str, ...]:
        """What varies in an exported file; recurrent layers are unrolled for one length."""
        unrolled = any(isinstance(part, nn.RNNBase) for part in self.network.modules())
        return ("batch",) if unrolled else ("batch", "length")

    def loss(self, batch: Tensor) -> Tensor:
        """Of token ids (B, T + 1)."""
        logits, targets = self(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        if not self.training:
            nats = F.cross_entropy(logits, targets, reduction="sum")
            self.add_to_mean("bits_per_byte", nats / log(2), int(self.byte_counts[targets].sum()))
            self.update_metrics(logits[None], targets[None], {"perplexity": Perplexity()})
            self.update_metrics(logits, targets)
        return self.criterion(logits, targets)

    def predict_step(
        self, batch: Any, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Any]:
        """Of windows (B, T + 1) the bits per byte (B,); of prompts (see `TextData`) what comes."""
        if isinstance(batch, dict):
            return {"text": write(self.network, batch, self.characters)}
        logits, targets = self(batch[:, :-1]), batch[:, 1:]
        nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(dim=1)
        return {"bits_per_byte": nats / log(2) / self.byte_counts[targets].sum(dim=1)}

    def export_step(self, batch: Tensor) -> dict[str, Tensor]:
        """Of token ids (B, T) the probabilities (B, vocab_size) of the next one."""
        return {"probability": self(batch)[:, -1].softmax(dim=1)}

    def pictures(self, batch: Any) -> str:
        """What follows the beginnings of some windows, by the same random numbers each time."""
        if isinstance(batch, dict):
            return ""
        prompts, random = batch[:4, :32], torch.Generator(self.device).manual_seed(0)
        found = generate(self.network, prompts, 200, generator=random)
        texts = [decode(one, self.characters) for one in torch.cat([prompts, found], dim=1)]
        return "\n\n----\n\n".join(texts)
