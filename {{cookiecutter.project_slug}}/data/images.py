"""What the data modules share: splits by a seed, loaders, and the work on whole batches."""

import os
import warnings
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, default_convert
from torchdata.stateful_dataloader import StatefulDataLoader

from data.augment import random_flip, random_shift
from data.files import ImageFiles, find_images

# torchdata 0.11 with torch >= 2.13
warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
# Images in memory need no workers: fetching a batch is one indexing operation.
warnings.filterwarnings("ignore", message=".*does not have many workers")


class Split(Dataset):
    """Some of the images, fetched a batch at a time.

    images: uint8 (N, C, H, W), or anything that gives that when indexed with a tensor of rows.
    labels: int64 (N,); rows: which of the N are in this split.
    """

    def __init__(self, images: Any, labels: Tensor, rows: Tensor) -> None:
        self.images, self.labels, self.rows = images, labels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        rows = self.rows[torch.tensor(indices).to(self.rows.device, non_blocking=True)]
        return self.images[rows], self.labels[rows]


def by_class(labels: Tensor, seed: int) -> Tensor:
    """Indices of all labels, class after class, shuffled within each class."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return shuffled[labels[shuffled].argsort(stable=True)]


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the rest and of a random `fraction` of each class (at least one of each)."""
    order = by_class(labels, seed)
    counts = labels.bincount()
    firsts = counts.cumsum(0) - counts
    position = torch.arange(len(labels)) - firsts[labels[order]]
    taken = position < (counts * fraction).ceil()[labels[order]]
    return order[~taken].sort().values, order[taken].sort().values


class ImageData(LightningDataModule):
    """Base of the data modules: a subclass sets the facts below and implements `load`.

    A batch is (images, labels). Loaders give uint8 (B, C, H, W) and int64 (B,); on the device the
    images become floats in [-1, 1] of the Trainer's precision.

    Args:
        batch_size: images in a batch, for each device.
        num_workers: processes that load images; auto: none for images in memory.
        val_fraction: share of the training images that is kept for validation.
        seed: chooses the splits and folds.
        augment: change the training images at random in the way that suits the data set.
        on_device: keep all images in the device's memory; auto: if it is a GPU and they fit.
        num_folds: split training and validation images into this many folds instead.
        fold: the fold to validate on, from 0.
        predict_dir: folder of images to predict; default: the test split.
    """

    image_shape: tuple[int, int, int]
    class_names: list[str]
    max_shift = 0
    flip = False
    test_fraction = 0.2

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
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}; it must lie between 0 and 1.")
        if num_folds is not None and not (num_folds > 1 and 0 <= fold < num_folds):
            raise ValueError(
                f"num_folds is {num_folds} and fold is {fold}; "
                "num_folds must be at least 2 and fold from 0 to num_folds - 1."
            )
        self.save_hyperparameters()
        self.batch_size = batch_size
        self.splits: dict[str, Split] = {}

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def load(self) -> tuple[Any, Tensor, dict[str, Tensor]]:
        """Images (N, C, H, W), labels (N,), and the rows of the splits that the data set has."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        hparams = self.hparams
        if stage == "predict" and hparams.predict_dir:
            files = find_images(hparams.predict_dir)
            labels = torch.full((len(files),), -1)
            images = ImageFiles(files, self.image_shape)
            self.splits["predict"] = Split(images, labels, torch.arange(len(files)))
            self.predict_names = [str(file) for file in files]
        elif "train" not in self.splits:
            images, labels, rows = self.load()
            rows = self._fill_splits(labels, rows)
            images = self._move(images)
            if isinstance(images, Tensor):
                labels = labels.to(images.device)
                rows = {name: index.to(images.device) for name, index in rows.items()}
            self.splits |= {name: Split(images, labels, index) for name, index in rows.items()}
            self.predict_names = [str(index) for index in range(len(self.splits["test"]))]

    def _fill_splits(self, labels: Tensor, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adds the splits that the data set does not come with."""
        hparams = self.hparams
        train = rows.get("train", torch.arange(len(labels)))
        test = rows.get("test")
        if test is None:
            rest, taken = stratified_split(labels[train], self.test_fraction, hparams.seed)
            train, test = train[rest], train[taken]
        val = rows.get("val")
        if hparams.num_folds:
            pool = train if val is None else torch.cat([train, val])
            order = pool[by_class(labels[pool], hparams.seed)]
            in_fold = torch.arange(len(order)) % hparams.num_folds == hparams.fold
            train, val = order[~in_fold].sort().values, order[in_fold].sort().values
        elif val is None:
            rest, taken = stratified_split(labels[train], hparams.val_fraction, hparams.seed)
            train, val = train[rest], train[taken]
        return {"train": train, "val": val, "test": test}

    def _move(self, images: Any) -> Any:
        """Puts the images into the device's memory where `on_device` asks for it."""
        on_device = self.hparams.on_device
        if not on_device or self.trainer is None or not isinstance(images, Tensor):
            return images
        device = self.trainer.strategy.root_device
        if on_device == "auto" and device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
            if images.nbytes > free / 4:
                rank_zero_info(
                    f"The images stay in the computer's memory: they take {images.nbytes / 1e9:.1f} GB, "
                    f"more than a quarter of the {free / 1e9:.1f} GB free on {device}."
                )
                return images
        return images.to(device)

    def train_dataloader(self) -> StatefulDataLoader:
        split = self.splits["train"]
        trainer = self.trainer
        if trainer is None or trainer.overfit_batches:
            return self._loader("train", shuffle=trainer is None)
        # The order follows from seed and epoch alone, so that it is known on every process and
        # after a resume; the loader's state is no more than how many samples it gave.
        sampler = DistributedSampler(
            split,
            **(trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}),
            seed=int(os.environ.get("PL_GLOBAL_SEED", "0")),
        )
        sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)
        # A last batch of one image would break batch norm.
        return self._loader("train", sampler=sampler, drop_last=len(sampler) >= self.batch_size)

    def val_dataloader(self) -> StatefulDataLoader:
        return self._eval_loader("val")

    def test_dataloader(self) -> StatefulDataLoader:
        return self._eval_loader("test")

    def predict_dataloader(self) -> StatefulDataLoader:
        return self._eval_loader("predict" if self.hparams.predict_dir else "test")

    def _eval_loader(self, name: str) -> StatefulDataLoader:
        world = self.trainer and self.trainer.distributed_sampler_kwargs
        if not world:
            return self._loader(name)
        # No sample twice (as padding would) and the same number of batches on every process.
        sampler = UnrepeatedDistributedSampler(self.splits[name], **world, shuffle=False)
        return self._loader(name, sampler=sampler)

    def _loader(self, name: str, **kwargs: Any) -> StatefulDataLoader:
        split = self.splits[name]
        in_memory = isinstance(split.images, Tensor)
        workers = self.hparams.num_workers
        if workers == "auto" or (in_memory and split.images.device.type != "cpu"):
            workers = 0 if in_memory else min(8, max(1, len(os.sched_getaffinity(0)) - 1))
        return StatefulDataLoader(
            split,
            batch_size=self.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=default_convert,
            generator=torch.Generator(),  # worker seeds: leave the global random state alone
            **kwargs,
        )

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        if self.hparams.augment and self.trainer is not None and self.trainer.training:
            if self.max_shift:
                images = random_shift(images, self.max_shift)
            if self.flip:
                images = random_flip(images)
        images = images.float().div_(127.5).sub_(1)
        if self.trainer is not None:
            images = self.trainer.precision_plugin.convert_input(images)
        return images, labels

    def state_dict(self) -> dict[str, Any]:
        return {"class_names": list(self.class_names), "image_shape": list(self.image_shape)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for key, here in self.state_dict().items():
            if state_dict[key] != here:
                raise ValueError(
                    f"The checkpoint was trained on data with {key} {state_dict[key]}; "
                    f"{type(self).__name__} has {here}."
                )
