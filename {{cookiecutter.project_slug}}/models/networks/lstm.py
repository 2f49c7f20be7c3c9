"""Long short-term memory (Hochreiter & Schmidhuber 1997)."""

from typing import Any

from torch import Tensor, nn


class LSTM(nn.Module):
    """Embeddings -> LSTM layers -> logits of the next token.

    Args:
        vocab_size: number of token ids.
        dim: width of embeddings and layers.
        depth: number of layers.
    """

    def __init__(self, vocab_size: int, dim: int = 256, depth: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, dim)
        self.backbone = nn.LSTM(dim, dim, depth, batch_first=True)
        self.head = nn.Linear(dim, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, vocab_size) logits of the token after each."""
        return self.head(self.backbone(self.embedding(tokens))[0])

    def step(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(B, T) token ids and the state after those before -> (B, vocab_size) logits of the next
        token, the state after these."""
        x, state = self.backbone(self.embedding(tokens), state)
        return self.head(x[:, -1]), state
