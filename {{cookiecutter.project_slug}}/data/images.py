"""What the data modules share: splits, loaders, and the work on whole batches."""

import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset, default_convert
from torchdata.stateful_dataloader import StatefulDataLoader

from data.augment import random_crop
from data.datasets import Batch, ImageFiles, ImageTensors, find_images, leave_signals
from data.samplers import TrainSampler, each_once
from data.splits import Rows, check_splits, complete_splits
from engine.errors import UserError

# torchdata 0.11 calls a function that torch deprecates.
warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
# Lightning advises more workers, but a batch in memory is fetched by one indexing operation.
warnings.filterwarnings("ignore", message=".*does not have many workers")


class ImageData(LightningDataModule):
    """Base of the data modules: a subclass sets the facts below and implements `load`.

    A batch is (images, labels). Loaders give uint8 (B, C, H, W) and int64 (B,); on the device the
    images become floats in [-1, 1] of the Trainer's precision.

    Args:
        batch_size: images in a batch, on each device; an evaluation takes `evaluation_scale` times
            as many where they are small and in memory.
        num_workers: processes that load images; auto: none for images in memory.
        val_fraction: share of the training images that is kept for validation.
        seed: chooses the splits and folds.
        augment: vary the training images at random, in the way that suits the data set.
        on_device: keep images that are in memory on the device; auto: on a GPU, if they fit.
        num_folds: cut training and validation images into this many folds instead.
        fold: the fold to validate on, from 0.
        predict_dir: folder of images to predict; by default the test split.
    """

    image_shape: tuple[int, int, int]  # channels, height, width
    class_names: list[str]
    crop_padding = 0  # `augment`: shift by up to so many pixels
    flip = False  # `augment`: mirror
    test_fraction = 0.2  # where the data set has no test split
    evaluation_scale = 8  # 1: evaluation batches are no larger than training batches

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int | Literal["auto"] = "auto",
        val_fraction: float = 0.1,
        seed: int = 0,
        augment: bool = False,
        on_device: bool | Literal["auto"] = "auto",
        num_folds: int | None = None,
        fold: int = 0,
        predict_dir: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it must be 1 or more.")
        if num_workers != "auto" and num_workers < 0:
            raise UserError(f"num_workers is {num_workers}: it must be auto, 0 or more.")
        if on_device is True and num_workers not in ("auto", 0):
            raise UserError(
                f"on_device is true and num_workers is {num_workers}: nothing is loaded, use auto."
            )
        check_splits(val_fraction, num_folds, fold)
        self.save_hyperparameters()
        # A checkpoint holds plain values only.
        self.hparams.update({k: str(v) for k, v in self.hparams.items() if isinstance(v, Path)})
        self.batch_size = batch_size
        self.splits: dict[str, Any] = {}  # Subsets of ImageTensors or ImageFiles

    def load(self) -> tuple[ImageTensors | ImageFiles, Rows]:
        """All images with their labels, and the rows of the splits that the data set comes with."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def predict_names(self) -> list[str]:
        """What `predict_dataloader` gives, in order: paths of files, or places in the split."""
        split = self.splits["predict"]
        names = split.dataset.names
        return [names[i] for i in split.indices] if names else [str(i) for i in range(len(split))]

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def predicts_folder(self) -> bool:
        return bool(self.trainer and self.trainer.predicting and self.hparams.predict_dir)

    def setup(self, stage: str) -> None:
        if self.hparams.predict_dir and stage == "predict":
            names = find_images(self.hparams.predict_dir)
            files = ImageFiles(names, torch.full((len(names),), -1), self.image_shape)
            self.splits["predict"] = Subset(files, range(len(names)))
        elif "train" not in self.splits:
            dataset, rows = self.load()
            rows = complete_splits(rows, dataset.labels, self.test_fraction, self.hparams)
            if isinstance(dataset, ImageTensors) and self.wants_on_device():
                dataset.move_to(self.device)
            self.splits = {name: Subset(dataset, rows[name].tolist()) for name in rows}
            self.splits["predict"] = self.splits["test"]

    def wants_on_device(self) -> bool:
        if self.hparams.on_device == "auto":
            return self.device.type in ("cuda", "mps") and self.hparams.num_workers in ("auto", 0)
        return self.hparams.on_device

    def train_dataloader(self) -> StatefulDataLoader:
        split = self.splits["train"]
        options = self.loader_options(split)
        if self.trainer is None:
            options["shuffle"] = True
        elif not self.trainer.overfit_batches:
            sampler = TrainSampler(split, self.trainer)
            # A last batch of one image would break batch norm.
            options |= {"sampler": sampler, "drop_last": len(sampler) >= self.batch_size}
        return StatefulDataLoader(split, **options)

    def val_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader(self.splits["val"])

    def test_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader(self.splits["test"])

    def predict_dataloader(self) -> DataLoader:
        return self.evaluation_dataloader(self.splits["predict"])

    def evaluation_dataloader(self, split: Any) -> DataLoader:
        options = self.loader_options(split)
        if isinstance(split.dataset, ImageTensors) and not getattr(self.trainer, "fast_dev_run", 0):
            # Each batch has its overhead; that of a million numbers is hidden.
            most = max(1, 2**20 // torch.Size(self.image_shape).numel() // self.batch_size)
            options["batch_size"] *= min(self.evaluation_scale, most)
        if world := self.trainer and self.trainer.distributed_sampler_kwargs:
            options |= each_once(split, options["batch_size"], **world)
        return DataLoader(split, **options)

    def workers(self, dataset: ImageTensors | ImageFiles) -> int:
        if self.hparams.num_workers != "auto":
            return self.hparams.num_workers
        most = min(8, 1 + suggested_max_num_workers(getattr(self.trainer, "num_devices", 1)))
        return 0 if isinstance(dataset, ImageTensors) else most

    def loader_options(self, split: Any) -> dict[str, Any]:
        workers = self.workers(split.dataset)
        return {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.device.type == "cuda" and split.dataset.labels.is_cpu,
            "worker_init_fn": leave_signals if workers else None,
            "collate_fn": default_convert,
            "generator": torch.Generator(),  # else each loader would draw from the global one
        }

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        if self.trainer and self.trainer.training and self.hparams.augment:
            images = random_crop(images, self.crop_padding, self.flip)
        images = images.float().div_(127.5).sub_(1)
        if self.trainer:
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels

    def facts(self) -> dict[str, Any]:
        return {"class_names": list(self.class_names), "image_shape": list(self.image_shape)}

    def state_dict(self) -> dict[str, Any]:
        return self.facts() | {"num_workers": self.workers(self.splits["train"].dataset)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.predicts_folder:  # images from elsewhere are read as those of the fit were
            self.class_names = state_dict["class_names"]
            self.image_shape = tuple(state_dict["image_shape"])
            self.splits["predict"].dataset.image_shape = self.image_shape
            return
        for name, here in self.facts().items():
            if state_dict[name] != here:
                checkpoint = (self.trainer and self.trainer.ckpt_path) or "The checkpoint"
                raise UserError(
                    f"{checkpoint} comes from data with {name} {state_dict[name]}, "
                    f"but this {type(self).__name__} has {name} {here}."
                )
        if self.trainer and self.trainer.state.fn == "fit":
            # The loader's place in the epoch is stored by worker; a worker reads no GPU's memory.
            self.hparams.num_workers = state_dict["num_workers"]
            if self.hparams.num_workers and isinstance(self.splits["train"].dataset, ImageTensors):
                self.splits["train"].dataset.move_to(torch.device("cpu"))
