"""Makes small data sets in the file format of each real one."""

import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

IDX_FOLDERS = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes bytes in the IDX format of MNIST."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(data_dir: Path, train: int = 100, test: int = 40, data: str = "mnist") -> Path:
    """Random images in the four files of MNIST or Fashion-MNIST, under `data_dir`."""
    random = np.random.default_rng(0)
    folder = data_dir / IDX_FOLDERS[data]
    folder.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    return data_dir


def write_cifar10(data_dir: Path, train: int = 100, test: int = 40) -> Path:
    """Random images in the pickled batches of CIFAR-10, under `data_dir`."""
    random = np.random.default_rng(0)
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sizes = {f"data_batch_{i}": train // 5 for i in range(1, 6)} | {"test_batch": test}
    for name, count in sizes.items():
        data = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        batch = {"data": data, "labels": [i % 10 for i in range(count)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return data_dir


def photograph(random: np.random.Generator, size: int) -> Image.Image:
    """A smooth picture with some noise, which compresses as photographs do."""
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    noise = random.integers(-12, 13, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def write_images(
    folder: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 12, size: int = 40
) -> Path:
    """`count` JPEG files of `size` x `size` pixels for each class in `folder/<class>/`."""
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            photograph(random, size).save(folder / name / f"{i:05}.jpg", quality=90)
    return folder
