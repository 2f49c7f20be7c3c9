"""A few random images in CIFAR-10's own file format (pickled batches)."""

import pickle
from pathlib import Path

import numpy as np


def write(folder: Path) -> list[str]:
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (20, 3072)).astype(np.uint8)
        batch = {"data": data, "labels": [i % 10 for i in range(20)]}
        batches.joinpath(name).write_bytes(pickle.dumps(batch))
    return [f"--data.data_dir={folder}"]
