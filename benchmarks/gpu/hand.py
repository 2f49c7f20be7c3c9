"""A training loop as one writes it by hand who wants the card to be busy."""

import pickle
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
made: dict[str, Any] = {}


class Files(Dataset):
    """JPEG files, decoded and resized one at a time."""

    def __init__(self, folder: Path, size: int) -> None:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        self.items = [(file, i) for i, c in enumerate(classes) for file in sorted(c.iterdir())]
        self.size = size

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from torchvision.io import decode_jpeg, read_file
        from torchvision.transforms.v2.functional import resize

        file, label = self.items[index]
        return resize(decode_jpeg(read_file(str(file))), [self.size, self.size]), label


def make(project: Path, data: Path, job: Any) -> None:
    """Network, optimizer and data, with the settings of the project's configuration."""
    torch.set_float32_matmul_precision("high")
    settings: dict[str, Any] = {}
    for path in sorted((project / "configs").glob("*.yaml")):
        for key, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            settings.setdefault(key, {}).update(value if isinstance(value, dict) else {})
    model = settings["model"]["init_args"]
    if job.jpeg:
        size = settings["data"]["init_args"]["image_size"]
        dataset = Files(data, size)
        loader = DataLoader(
            dataset,
            job.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=job.workers,
            persistent_workers=True,
            pin_memory=DEVICE.type == "cuda",
        )
        made["loader"] = loader
        shape, classes, padding = (3, size, size), 2, size // 8
    else:
        parts = [data / "cifar-10-batches-py" / f"data_batch_{i}" for i in range(1, 6)]
        parts = [pickle.loads(path.read_bytes(), encoding="latin1") for path in parts]
        images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for part in parts for label in part["labels"]])
        keep = DEVICE if job.on_device else torch.device("cpu")
        made["images"], made["labels"] = torch.from_numpy(images).to(keep), labels.to(keep)
        shape, classes, padding = (3, 32, 32), 10, 4
    made["padding"] = padding if settings["data"]["init_args"]["augment"] else 0
    made["flip"] = settings["data"]["init_args"].get("flip", not job.jpeg)
    kind = resolve_name(model["network"]["class_path"])
    known = {"image_shape": shape, "input_shape": shape, "num_classes": classes}
    facts = {name: value for name, value in known.items() if name in signature(kind).parameters}
    network = kind(**facts, **model["network"].get("init_args", {}))
    network = network.to(DEVICE, memory_format=torch.channels_last).train()
    if job.compile:
        network.compile()
    kind = resolve_name(model["optimizer"]["class_path"])
    options = model["optimizer"].get("init_args", {})
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    made["optimizer"] = kind(groups, lr=model["lr"], **options)
    made["schedule"] = torch.optim.lr_scheduler.CosineAnnealingLR(made["optimizer"], 10_000)
    loss = model.get("loss", {}).get("init_args", {})
    made["network"], made["smoothing"] = network, loss.get("label_smoothing", 0.0)
    made["autocast"] = job.precision == "bf16-mixed"
    made["loss"] = torch.zeros((), device=DEVICE)


def epoch(project: Path, data: Path, job: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches on the device, uint8 and int64."""
    if not made:
        make(project, data, job)
    while True:
        if job.jpeg:
            for images, labels in made["loader"]:
                yield images.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
            continue
        images, labels = made["images"], made["labels"]
        for rows in torch.randperm(len(labels), device=labels.device).split(job.batch_size):
            if len(rows) < job.batch_size:
                break
            x, y = images[rows], labels[rows]
            if x.device.type != DEVICE.type:
                x, y = (part.pin_memory().to(DEVICE, non_blocking=True) for part in (x, y))
            yield x, y


def step(images: Tensor, labels: Tensor, number: int) -> None:
    from data.images import random_crop

    if made["padding"]:
        images = random_crop(images, made["padding"], made["flip"])
    images = images.float().div_(127.5).sub_(1)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=made["autocast"]):
        logits = made["network"](images)
        loss = F.cross_entropy(logits, labels, label_smoothing=made["smoothing"])
    made["optimizer"].zero_grad()
    loss.backward()
    made["optimizer"].step()
    made["schedule"].step()
    if number % 50 == 49:
        made["loss"] = loss.detach().item()
