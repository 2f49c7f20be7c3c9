"""Your own images, in a folder for each class."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Subset

from data.image_cache import read_all, read_once
from data.image_classes import find_classes, least_images, list_images
from data.image_files import ImageFiles
from data.image_range import check_range, find_range, spread
from data.images import ImageData, in_memory
from engine.errors import UserError
from engine.loaders import workers
from engine.samples import TensorSamples
from engine.splits import Rows

FLAT = 3  # of 255: an image whose values differ by less shows nothing
ADVICE = "repair or remove it, or leave it out: --data.skip_unreadable true"


class ImageFolder(ImageData):
    """Images in `DATA_DIR/<split>/<class>/*`, the splits being train, val and test, or in
    `DATA_DIR/<class>/*`. Where val or test is missing, it is split off from train.

    Images are resized until the shorter side is `image_size`, and cropped to a central square.

    Args:
        data_dir: folder of the images.
        image_size: height and width in pixels.
        flip: `augment` also mirrors them, left to right. Not if that changes what an image shows,
            such as a digit or a turn to the left.
        skip_unreadable: leave out files that cannot be read; all are read once to find them.
        cache: keep the resized images in one file in `data_dir`, until an image changes.
        value_range: values of 16-bit images that become black and white; by default the range of
            the images of the fit, without the outermost thousandths.
    """

    largest_batch = 64

    def __init__(
        self,
        data_dir: str = "datasets/images",
        image_size: int = 64,
        flip: bool = False,
        skip_unreadable: bool = False,
        cache: bool = False,
        value_range: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if image_size < 1:
            raise UserError(f"image_size is {image_size}: it must be 1 or more.")
        if self.hparams.on_device is True and not cache:
            raise UserError("on_device is true, but the images stay in files: set cache to true.")
        self.root = Path(data_dir).expanduser()
        self.image_shape = (3, image_size, image_size)
        self.crop_padding, self.flip = image_size // 8, flip
        check_range(value_range)
        self.listing: tuple[list[str], Tensor, Rows] | None = None
        if self.root.is_dir() or not self.hparams.predict_dir:
            self.folders, self.class_names = find_classes(self.root)
            if not (value_range or self.hparams.predict_dir):
                self.listing = list_images(self.root, self.folders, self.class_names)
                self.hparams.value_range = find_range(self.listing[0])
        else:  # to predict other images, those of the fit are not needed
            self.folders, self.class_names = {}, []

    def prepare_data(self) -> None:
        if (self.hparams.cache or self.hparams.skip_unreadable) and not self.predicts_other:
            self.load()  # in one process; the others find the files that it writes

    def load(self) -> tuple[TensorSamples | ImageFiles, Rows]:
        if not self.folders:
            self.folders, self.class_names = find_classes(self.root)
        if self.listing is None:
            self.listing = list_images(self.root, self.folders, self.class_names)
        names, labels, rows = self.listing
        start = len(os.path.join(self.root, ""))
        ids = [name[start:].replace(os.sep, "/") for name in names]
        files = ImageFiles(
            names, labels, self.image_shape, ids=ids, value_range=self.hparams.value_range
        )
        files.advice = ADVICE
        cache, skip = self.hparams.cache, self.hparams.skip_unreadable
        if not (cache or skip):
            return files, rows
        images, errors = read_once(files, self.root, workers(self, files), keep_images=cache)
        if errors and not skip:
            raise UserError(
                f"{len(errors)} of {len(files)} images cannot be read. "
                f"{next(iter(errors.values()))}. Repair or remove them, or leave them out with "
                "skip_unreadable: true."
            )
        readable = report(files, errors)
        rows = {name: index[readable[index]] for name, index in rows.items()}
        for split, index in rows.items():
            counts = labels[index].bincount(minlength=self.num_classes)
            few = (counts < least_images(split, self.folders)).nonzero()
            if classes := [self.class_names[i] for i in few]:
                raise UserError(f"Too few images of the classes {classes} in {split} can be read.")
        return (files if images is None else in_memory(images, labels, names, ids)), rows

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            tell_flat(self.splits["train"])

    def read(self, source: Any) -> ImageFiles:
        files = super().read(source)
        files.advice = ADVICE
        if self.hparams.skip_unreadable:
            readable = report(files, read_all(files, workers(self, files)))
            files = super().read([files.images[i] for i in readable.nonzero().flatten()])
        return files


def report(files: ImageFiles, errors: dict[int, str]) -> Tensor:
    """Warns of the files that are left out; returns for each (N,) whether it can be read."""
    if len(errors) == len(files):
        raise UserError(f"None of {len(files)} images can be read. {next(iter(errors.values()))}.")
    if errors:
        reasons = "\n".join(list(errors.values())[:3])
        rank_zero_warn(f"Left out {len(errors)} of {len(files)} images, for example:\n{reasons}")
    readable = torch.ones(len(files), dtype=torch.bool)
    readable[list(errors)] = False
    return readable


def tell_flat(split: Subset) -> None:
    """Warns if some of 32 images are nearly of one tone."""
    samples: Any = split.dataset
    flat, some = [], spread(len(split), 32)
    for i in some:
        with suppress(ValueError):  # the error is shown when the image is needed
            image = split[i][0]
            if int(image.max()) - int(image.min()) < FLAT:
                flat.append(samples.names[split.indices[i]])
    if flat:
        rank_zero_warn(
            f"{len(flat)} of {len(some)} images that were looked at are nearly of one tone: see "
            f"{flat[0]}"
        )
