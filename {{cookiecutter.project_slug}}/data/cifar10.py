"""CIFAR-10: 60,000 colour images of ten kinds of things, 32 x 32."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from data.downloads import DownloadedImages, read_file


class CIFAR10(DownloadedImages):
    image_shape = (3, 32, 32)
    class_names = [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ]
    crop_padding = 4
    flip = True
    source = datasets.CIFAR10
    folder = datasets.CIFAR10.base_folder
    train_files = tuple(f"data_batch_{i}" for i in range(1, 6))
    test_files = ("test_batch",)

    def read_files(self, paths: list[Path]) -> tuple[Tensor, Tensor]:
        batches = [read_file(path, read_batch) for path in paths]
        images = np.concatenate([images for images, _ in batches])
        return torch.from_numpy(images), torch.cat([labels for _, labels in batches])


def read_batch(path: Path) -> tuple[np.ndarray, Tensor]:
    """Images (N, 3, 32, 32) and labels (N,) of a pickled batch."""
    with path.open("rb") as file:
        batch = pickle.load(file, encoding="latin1")
    return batch["data"].reshape(-1, 3, 32, 32), torch.tensor(batch["labels"])
