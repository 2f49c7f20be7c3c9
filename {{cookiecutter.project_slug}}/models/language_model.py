"""Language models: predict the next token of a text."""

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
    """Trains a network to predict the token after each, with cross entropy.

    Args:
        network: maps token ids (B, T) to logits (B, T, vocab_size); its ``step`` returns those of
            the last token (B, vocab_size), and a state to continue from.
        characters: by token id; without them, token ids are bytes.
        loss: mean loss of logits (N, vocab_size) and token ids (N,), by default cross entropy.
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
        sizes[0] = 1  # unknown characters have at least one byte
        self.register_buffer("byte_counts", torch.tensor(sizes), persistent=False)

    @property
    def export_dims(self) -> tuple[str, ...]:
        """Dimensions that vary in an exported file; recurrent layers are unrolled for a length."""
        unrolled = any(isinstance(part, nn.RNNBase) for part in self.network.modules())
        return ("batch",) if unrolled else ("batch", "length")

    def loss(self, batch: Tensor) -> Tensor:
        """The mean loss of token ids (B, T + 1)."""
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
        """Bits per byte (B,) of windows (B, T + 1), or texts that continue prompts (`TextData`)."""
        if isinstance(batch, dict):
            return {"text": write(self.network, batch, self.characters)}
        logits, targets = self(batch[:, :-1]), batch[:, 1:]
        nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").sum(dim=1)
        return {"bits_per_byte": nats / log(2) / self.byte_counts[targets].sum(dim=1)}

    def export_step(self, batch: Tensor) -> dict[str, Tensor]:
        """Probabilities (B, vocab_size) of the token after token ids (B, T)."""
        return {"probability": self(batch)[:, -1].softmax(dim=1)}

    def pictures(self, batch: Any) -> str:
        """Continues the beginnings of some windows, with the same random numbers each time."""
        if isinstance(batch, dict):
            return ""
        prompts, random = batch[:4, :32], torch.Generator(self.device).manual_seed(0)
        found = generate(self.network, prompts, 200, generator=random)
        texts = [decode(one, self.characters) for one in torch.cat([prompts, found], dim=1)]
        return "\n\n----\n\n".join(texts)
