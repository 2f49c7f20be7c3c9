"""Your own images, each with a mask that says the class of every pixel."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import Subset

from data.image_range import check_range, find_range, read_through
from data.image_sources import find_images
from data.mask_files import IGNORED, MaskFiles, refuse_alike
from data.mask_search import find_masks, find_splits, tell_palettes, tell_turned
from data.segmentation import SegmentationData
from engine.errors import UserError
from engine.loaders import workers
from engine.samples import TensorSamples
from engine.splits import Rows

Value = int | list[int]


class MaskFolder(SegmentationData):
    """Images in `DATA_DIR/<split>/images` and masks of the same names and sizes in
    `DATA_DIR/<split>/masks`, the splits being train, val and test, or in `DATA_DIR/images` and
    `DATA_DIR/masks`. Where val or test is missing, it is split off from train.

    Images and masks are resized to `image_size` in height and width. Data sets of less than
    `most_memory` bytes are read once and kept in memory.

    Args:
        data_dir: folder of images and masks.
        class_names: names of the classes.
        class_values: value of each class in the masks: numbers, or colours [red, green, blue]; by
            default 0, 1, 2 and so on.
        ignore_value: value of pixels that do not count; 255 may be the value of a class.
        mask_suffix: what follows the image's name in the name of its mask, such as _mask.
        image_size: height and width in pixels.
        flip: `augment` also mirrors them, left to right. Not if that changes what an image shows.
        value_range: values of 16-bit images that become black and white; by default the range of
            the images of the fit, without the outermost thousandths.
    """

    largest_batch = 16
    most_memory = 2**30

    def __init__(
        self,
        data_dir: str = "datasets/masks",
        class_names: Sequence[str] = ("background", "foreground"),
        class_values: list[Value] | None = None,
        ignore_value: Value | None = IGNORED,
        mask_suffix: str = "",
        image_size: int = 128,
        flip: bool = False,
        value_range: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_range(value_range)
        if image_size < 1:
            raise UserError(f"image_size is {image_size}: it must be 1 or more.")
        if not 2 <= len(set(class_names)) == len(class_names) < IGNORED:
            raise UserError(f"class_names is {class_names}: give 2 to 254 different names.")
        values = list(range(len(class_names))) if class_values is None else class_values
        if len(values) != len(class_names):
            raise UserError(
                f"class_values has {len(values)} values for {len(class_names)} class_names: give "
                "one for each."
            )
        colored = {isinstance(value, list) for value in values}
        codes = [code(value) for value in values]
        if len(colored) > 1 or len(set(codes)) < len(codes):
            raise UserError(f"class_values {values}: give different numbers, or different colours.")
        [self.colored] = colored
        self.values = {value: index for index, value in enumerate(codes)}
        if ignore_value is not None:
            alike = isinstance(ignore_value, list) == self.colored
            if alike and code(ignore_value) not in codes:
                self.values[code(ignore_value)] = IGNORED
            elif ignore_value != IGNORED:  # which may be of a class, or beside colours
                raise UserError(
                    f"ignore_value is {ignore_value}: give what is none of class_values, {values}, "
                    "but alike."
                )
        self.root, self.class_names = Path(data_dir).expanduser(), list(class_names)
        self.class_colors = values if self.colored else None  # type: ignore[assignment]
        self.image_shape = (3, image_size, image_size)
        self.crop_padding, self.flip = image_size // 8, flip
        if not (value_range or self.hparams.predict_dir):
            folders = [*self.root.glob("images"), *self.root.glob("*/images")]
            names = [name for folder in folders for name in find_images(folder, Counter())]
            self.hparams.value_range = find_range(names)

    def load(self) -> tuple[TensorSamples | MaskFiles, Rows]:
        names: list[str] = []
        masks: list[str] = []
        rows: Rows = {}
        for split, folder in find_splits(self.root).items():
            found = find_images(folder / "images")
            if not found:
                raise UserError(f"There are no images in {folder / 'images'}.")
            refuse_alike(found)
            masks += find_masks(folder, found, self.hparams.mask_suffix)
            rows[split] = torch.arange(len(names), len(names) + len(found))
            names += found
        if len(names) < 3:
            raise UserError(f"{self.root}: {len(names)} images, too few for train, val and test.")
        tell_palettes(masks, () if self.colored else self.values)
        tell_turned(names, masks)
        options = {
            "ids": [os.path.relpath(name, self.root) for name in names],
            "value_range": self.hparams.value_range,
        }
        files = MaskFiles(names, masks, self.image_shape, self.values, self.colored, **options)
        size = len(files) * (1 + self.image_shape[0]) * self.image_shape[1] ** 2
        if size > self.most_memory and self.hparams.on_device is not True:
            return files, rows
        return read_all(files, workers(self, files)), rows

    def read(self, source: Any) -> MaskFiles:
        """The images of `open_images`; of a folder that has `images` beside masks, those in it."""
        if isinstance(source, str | Path) and Path(source, "images").is_dir():
            source = Path(source, "images")
        return super().read(source)

    def setup(self, stage: str) -> None:
        read = "train" not in self.splits
        super().setup(stage)
        if read and "train" in self.splits and stage == "fit":
            self.check_classes()

    def check_classes(self) -> None:
        """Checks that the masks have pixels of the classes; of files not in memory only some."""
        for name, least in {"train": 2, "val": 1}.items():
            split = self.splits[name]
            if isinstance(split.dataset, MaskFiles):
                split = Subset(split.dataset, split.indices[:256])
            counts = zip(self.class_names, self.count_pixels(split).tolist(), strict=True)
            missing = [class_name for class_name, count in counts if not count]
            if len(missing) > self.num_classes - least:
                raise UserError(
                    f"{len(split)} {name} masks in {self.root} have no pixel of {missing}. Say in "
                    "class_values what stands in them for each class, as [0, 255]."
                )
            if missing and name == "train":
                rank_zero_warn(f"{len(split)} train masks have no pixel of the classes {missing}.")


def code(value: Value) -> int:
    """A value as one number: that of a colour is its RGB."""
    if isinstance(value, int):
        return value
    if len(value) != 3 or not all(0 <= part <= 255 for part in value):
        raise UserError(f"The colour {value} must have three numbers from 0 to 255.")
    return value[0] << 16 | value[1] << 8 | value[2]


def read_all(files: MaskFiles, num_workers: int) -> TensorSamples:
    """All images and masks in memory."""
    batches = read_through(files, num_workers)
    images, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return TensorSamples((images, masks), names=files.names, ids=files.ids)
