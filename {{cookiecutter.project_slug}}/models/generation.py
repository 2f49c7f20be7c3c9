"""How a language model writes: a token at a time, each drawn by its probability."""

from typing import Any

import torch
from torch import Tensor


def generate(
    network: Any,
    prompts: Tensor,
    length: int,
    temperature: float = 0.8,
    top_k: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continues prompts (B, T) by `length` token ids (B, length).

    Args:
        network: its ``step`` returns logits of the next token, and a state to continue from.
        prompts: token ids.
        length: how many follow.
        temperature: divides the logits; 0: always the most likely token.
        top_k: draw from so many most likely tokens only; 0: from all.
        generator: of the random numbers; by default the global one.
    """
    tokens, drawn = prompts, list[Tensor]()
    state: Any = None
    for _ in range(length):
        logits, state = network.step(tokens, state)
        logits = logits.float()
        if top_k:
            least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if temperature:
            probability = (logits / temperature).softmax(dim=1)
            tokens = probability.multinomial(1, generator=generator)
        else:
            tokens = logits.argmax(dim=1, keepdim=True)
        drawn.append(tokens)
    return torch.cat(drawn, dim=1)


def write(network: Any, prompts: dict[str, Tensor], characters: list[str]) -> list[str]:
    """The text that follows each of a batch of prompts (see `TextData.encode`)."""
    names = ("prompt", "size", "length", "temperature", "top_k")
    texts = []
    for tokens, size, *options in zip(*(prompts[name] for name in names), strict=True):
        length, temperature, top_k = (option.item() for option in options)
        found = generate(network, tokens[None, :size], length, temperature, top_k)
        texts.append(decode(found[0], characters))
    return texts


def decode(tokens: Tensor, characters: list[str]) -> str:
    """Token ids (T,) as text: by `characters` or, without any, as UTF-8 bytes. Invalid bytes and
    null characters become U+FFFD."""
    ids = tokens.tolist()
    if characters:
        text = "".join(characters[i] for i in ids)
    else:
        text = bytes(ids).decode(errors="replace")
    return text.replace("\0", "\ufffd")
