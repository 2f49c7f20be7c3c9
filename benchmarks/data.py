"""How fast images come, without a model: ours against the usual ways, side by side.

    python benchmarks/data.py [cifar10] [image_folder]

Prints a Markdown table. Each process has one thread, and the best of some passes counts.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "{{cookiecutter.project_slug}}"), str(ROOT / "tests")]

import torch
from fixtures import write_cifar10, write_images
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from data.cifar10 import CIFAR10
from data.image_folder import ImageFolder
from data.images import ImageData

Batches = Callable[[], Iterable]
BATCH_SIZE = 128
WORKERS = (0, 1, 2, 4)


class Samples(Dataset):
    """One image at a time, as usual."""

    def __init__(self, items: list, transform: Callable) -> None:
        self.items, self.transform = items, transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.items[index]), index % 10


def race(contestants: dict[str, Batches], passes: int = 3) -> dict[str, float]:
    """Images per second of the best pass of each, taking turns."""
    best = dict.fromkeys(contestants, 0.0)
    for _ in range(passes):
        for name, batches in contestants.items():
            start = time.perf_counter()
            count = sum(len(labels) for _, labels in batches())
            best[name] = max(best[name], count / (time.perf_counter() - start))
    return best


def usual(dataset: Dataset) -> dict[str, Batches]:
    """A plain DataLoader with some numbers of workers."""
    return {
        f"{workers} workers": DataLoader(
            dataset, BATCH_SIZE, True, num_workers=workers, persistent_workers=workers > 0
        ).__iter__
        for workers in WORKERS
    }


def ours(data: ImageData) -> Batches:
    """Batches as they reach the model: augmented and converted."""
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer.training = True
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    return lambda: (data.on_after_batch_transfer(batch, 0) for batch in loader)


def cifar10(folder: Path) -> None:
    write_cifar10(folder, train=50_000, test=10_000)
    data = CIFAR10(data_dir=str(folder), batch_size=BATCH_SIZE, augment=True)
    batches = ours(data)
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    images = list(data.splits["train"].dataset.samples[0][:10_000])
    rates = race({"ours": batches, **usual(Samples(images, transform))})
    print_row("CIFAR-10, crop and flip", "v2 transforms", rates, 8)


def image_folder(folder: Path) -> None:
    write_images(folder, tuple("abcdefghij"), count=500, size=256)
    options = {"data_dir": str(folder), "batch_size": BATCH_SIZE, "augment": False}
    first = ours(ImageFolder(**options))
    paths = [str(path) for path in sorted(folder.glob("*/*.jpg"))]

    def read(path: str) -> torch.Tensor:
        return functional.resize(decode_image(path, ImageReadMode.RGB), [64, 64], antialias=True)

    rates = race({"ours": first, **usual(Samples(paths, read))})
    first_rate = rates["ours"]
    print_row("256 x 256 JPEG to 64 x 64", "decode_image and resize", rates, 0.95)
    cached = race({"ours": ours(ImageFolder(cache=True, **options))})
    print_row("the same, cached", "not cached", cached | {"": first_rate}, 10)


def print_row(job: str, against: str, rates: dict[str, float], goal: float) -> None:
    our_rate = rates.pop("ours")
    theirs, their_rate = max(rates.items(), key=lambda item: item[1])
    against = f"{against}, {theirs}".rstrip(", ")
    ratio = our_rate / their_rate
    print(
        f"| {job} | {our_rate:,.0f} | {against} | {their_rate:,.0f} | {ratio:.2f} | >= {goal} |",
        flush=True,
    )


def main() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    print("| data alone | ours | against | its rate | ratio | goal |\n|---|---|---|---|---|---|")
    for job in (cifar10, image_folder):
        if job.__name__ in sys.argv[1:] or len(sys.argv) == 1:
            with tempfile.TemporaryDirectory() as folder:
                job(Path(folder, "images"))


if __name__ == "__main__":
    main()
