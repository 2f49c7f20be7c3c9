"""What a sample is known by, wherever it comes to lie: 64 bits of its name, content or number."""

import unicodedata
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.samples import TensorSamples


def keys_of(samples: Any, given: dict[str, Tensor]) -> Tensor:
    """The key (N,) of each sample: of its name, if the data set has `ids` or `names`; else of its
    content, if that is in memory; else of its number in the split that it comes with."""
    count = len(samples)
    if isinstance(known := getattr(samples, "keys", None), Tensor):
        return known
    names = next(filter(None, (text_of(samples, name) for name in ("ids", "names"))), None)
    if names:
        keys = np.fromiter(map(hash_text, names), np.uint64, count)
    elif isinstance(samples, TensorSamples) and len(samples.tensors[0]) == count:
        keys = np.zeros(count, np.uint64)
        for number, tensor in enumerate(samples.tensors):
            keys = mix(keys ^ hash_rows(tensor, number))
    else:
        keys = np.arange(count, dtype=np.uint64)
        for number, rows in enumerate(given.values()):
            keys[rows] = np.arange(len(rows), dtype=np.uint64) + np.uint64(number << 40)
        keys = mix(keys)
    # The second sample of the same key is another sample.
    order = keys.argsort(kind="stable")
    place = np.arange(count) - np.searchsorted(keys[order], keys[order])
    keys[order] ^= mix(place.astype(np.uint64)) * (place > 0).astype(np.uint64)
    return torch.from_numpy(keys.view(np.int64))


def text_of(samples: Any, name: str) -> list[str] | None:
    """An attribute that has a text for each sample; other data sets use these words otherwise."""
    found = getattr(samples, name, None)
    if not isinstance(found, list | tuple) or len(found) != len(samples):
        return None
    return [str(one) for one in found]


def hash_text(text: str) -> int:
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)  # macOS takes the other form
    data = text.encode("utf-8", errors="surrogateescape")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def hash_rows(tensor: Tensor, seed: int, chunk: int = 4096) -> np.ndarray:
    """A number (N,) of each row: the sum of its words, each times an odd number of its place."""
    found = [np.zeros(0, np.uint64)]
    for part in tensor.detach().split(chunk):  # it may be mapped, and larger than memory
        words = part.cpu().reshape(len(part), -1).contiguous().view(torch.uint8).numpy()
        if rest := words.shape[1] % 8:
            words = np.pad(words, ((0, 0), (0, 8 - rest)))
        words = words.view(np.uint64)
        generator = np.random.default_rng(seed)
        factors = generator.integers(2**63, size=words.shape[1], dtype=np.uint64)
        found.append((words ^ words >> np.uint64(32)) @ (2 * factors + 1))
    return np.concatenate(found)


def in_order_of(keys: Tensor, seed: int) -> Tensor:
    """The place (N,) of each key in an order that the seed alone decides."""
    numbers = mix(keys.numpy().view(np.uint64) + mix(np.array([seed % 2**64], np.uint64)))
    return torch.from_numpy(numbers.argsort(kind="stable").argsort())


def mix(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele, Lea & Flood 2014): neighbours become far apart."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)
