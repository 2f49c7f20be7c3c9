"""Your own images, in a folder for each class."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from data.image_cache import read_all, read_once
from data.image_files import ImageFiles, find_images
from data.images import ImageData, in_memory
from engine.errors import UserError
from engine.loaders import workers
from engine.samples import TensorSamples
from engine.splits import Rows

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {*SPLITS, "training", "valid", "validation", "eval", "testing"}


class ImageFolder(ImageData):
    """Images in `DATA_DIR/<split>/<class>/*`, the splits being train, val and test, or in
    `DATA_DIR/<class>/*`. Where val or test is missing, it is split off from train.

    An image is resized until its shorter side is `image_size`; the square in its middle counts.

    Args:
        data_dir: folder of the images.
        image_size: height and width in pixels.
        flip: `augment` mirrors them as well, left to right. Not if that changes what an image shows,
            such as a digit or a turn to the left.
        skip_unreadable: leave out files that cannot be read; all are read once to find them.
        cache: keep the resized images in one file in `data_dir`, until an image changes.
    """

    largest_batch = 64

    def __init__(
        self,
        data_dir: str = "datasets/images",
        image_size: int = 64,
        flip: bool = False,
        batch_size: int | Literal["auto"] = "auto",
        val_fraction: float | Literal["auto"] = "auto",
        skip_unreadable: bool = False,
        cache: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, val_fraction=val_fraction, **kwargs)
        if image_size < 1:
            raise UserError(f"image_size is {image_size}: it must be 1 or more.")
        if self.hparams.on_device is True and not cache:
            raise UserError(
                "on_device is true, but the images stay in files; set cache to true, too."
            )
        self.root = Path(data_dir).expanduser()
        self.image_shape = (3, image_size, image_size)
        self.crop_padding, self.flip = image_size // 8, flip
        if self.root.is_dir() or not self.hparams.predict_dir:
            self.folders, self.class_names = find_classes(self.root)
        else:  # a checkpoint's images are not needed to predict others
            self.folders, self.class_names = {}, []

    def prepare_data(self) -> None:
        if (self.hparams.cache or self.hparams.skip_unreadable) and not self.predicts_other:
            self.load()  # in one process, so that the others find the files that it leaves

    def load(self) -> tuple[TensorSamples | ImageFiles, Rows]:
        if not self.folders:
            self.folders, self.class_names = find_classes(self.root)
        names, labels, rows = list_images(self.folders, self.class_names)
        files = ImageFiles(names, labels, self.image_shape)
        cache, skip = self.hparams.cache, self.hparams.skip_unreadable
        if not (cache or skip):
            return files, rows
        images, errors = read_once(files, self.root, workers(self, files), keep_images=cache)
        if errors and not skip:
            raise UserError(
                f"{len(errors)} of {len(files)} images cannot be read. {next(iter(errors.values()))}. "
                "Repair or remove them, or leave them out with skip_unreadable: true."
            )
        readable = report(files, errors)
        rows = {name: index[readable[index]] for name, index in rows.items()}
        for split, index in rows.items():
            counts = labels[index].bincount(minlength=self.num_classes)
            few = (counts < least_images(split, self.folders)).nonzero()
            if classes := [self.class_names[i] for i in few]:
                raise UserError(f"Too few images of the classes {classes} in {split} can be read.")
        return (files if images is None else in_memory(images, labels, names)), rows

    def read(self, source: Any) -> ImageFiles:
        files = super().read(source)
        if self.hparams.skip_unreadable:
            readable = report(files, read_all(files, workers(self, files)))
            files = super().read([files.images[i] for i in readable.nonzero().flatten()])
        return files


def report(files: ImageFiles, errors: dict[int, str]) -> Tensor:
    """Tells how many files are left out; gives for each (N,) whether it can be read."""
    if errors:
        reasons = "\n".join(list(errors.values())[:3])
        rank_zero_warn(f"Left out {len(errors)} of {len(files)} images, for example:\n{reasons}")
    readable = torch.ones(len(files), dtype=torch.bool)
    readable[list(errors)] = False
    return readable


def subfolders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def find_classes(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split (only train, if there are none), and the names of the classes.

    Raises:
        UserError: no such folder, none in it, or folders that do not make sense as splits or classes.
    """
    layout = f"{root}/<train, val or test>/<class>/<image> or {root}/<class>/<image>"
    if not root.is_dir():
        raise UserError(f"There is no folder {root}. Put images in {layout}.")
    folders = {"train": root}
    top = subfolders(root)
    words = {name.lower() for name in top}
    if words and words <= SPLIT_WORDS - {"train"}:
        raise UserError(f"{root} has {top}: if these are splits, name them {SPLITS}.")
    if "train" in words:
        folders = {name: root / name for name in top}
        if others := set(folders) - set(SPLITS):
            unknown = ", ".join(sorted(others))
            raise UserError(f"{root} has {unknown} beside train: name splits train, val and test.")
    names = subfolders(folders["train"])
    if not names:
        raise UserError(f"{folders['train']} has no folders of classes. Put images in {layout}.")
    if len({name.lower() for name in names}) < len(names):
        raise UserError(f"{folders['train']} has classes that differ in case only: {names}.")
    for folder in folders.values():
        if others := set(names) ^ set(subfolders(folder)):
            raise UserError(
                f"{folders['train']} and {folder} must have the same classes; only one has {others}."
            )
    return folders, names


def least_images(split: str, folders: dict[str, Path]) -> int:
    """How many images a class must have: from those of train, missing splits are split off."""
    return 1 + len(SPLITS) - len(folders) if split == "train" else 1


def list_images(folders: dict[str, Path], class_names: list[str]) -> tuple[list[str], Tensor, Rows]:
    """Paths and labels of all images, and which of them are in which split."""
    names: list[str] = []
    labels: list[int] = []
    rows: Rows = {}
    for split, folder in folders.items():
        first = len(names)
        for label, class_name in enumerate(class_names):
            found = find_images(folder / class_name)
            if len(found) < least_images(split, folders):
                raise UserError(
                    f"{folder / class_name} has too few images ({len(found)}) to split off val or test."
                )
            names += found
            labels += [label] * len(found)
        rows[split] = torch.arange(first, len(names))
    return names, torch.tensor(labels), rows
