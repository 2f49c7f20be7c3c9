"""What segmentation sets share: images and masks, augmented together; predicted masks as files."""

import colorsys
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from data.image_sources import open_images
from data.images import ImageData, random_crop
from data.mask_files import IGNORED, MaskFiles, image_size, refuse_alike
from engine import loaders


class SegmentationData(ImageData):
    """Base of the segmentation sets: a subclass sets the attributes of `ImageData` and implements
    `load`.

    A batch is (images, masks): uint8 (B, C, H, W), on the device floats in [-1, 1], and the class
    of each pixel, uint8 (B, H, W); 255 is a pixel that does not count.
    """

    class_colors: list[list[int]] | None = None  # red, green, blue of each class, 0 to 255

    @property
    def facts(self) -> dict[str, Any]:
        colors = self.class_colors or spread_colors(self.num_classes)
        return {**super().facts, "class_colors": colors, "ignore_index": IGNORED}

    def adopt(self, facts: dict[str, Any]) -> None:
        super().adopt(facts)
        self.class_colors = facts["class_colors"]

    def read(self, source: Any) -> MaskFiles:
        """The images of `open_images`; their masks are not known."""
        images = open_images(source, channels=self.image_shape[0])
        value_range = self.hparams.get("value_range")
        files = MaskFiles(images, [], self.image_shape, value_range=value_range)
        refuse_alike(files.names)
        return files

    def augment(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, masks = batch
        if self.hparams.augment:
            # Bytes wrap around: 255 becomes 0, as the padding is, and 255 again.
            together = torch.cat([images, masks[:, None] + 1], dim=1)
            moved = random_crop(together, self.crop_padding, self.flip)
            images, masks = moved[:, :-1], moved[:, -1].byte() - 1
        return images, masks

    @property
    def class_counts(self) -> Tensor:
        """How many pixels of the training masks each class has, for weights that balance them."""
        return self.count_pixels(self.splits["train"])

    def count_pixels(self, split: Subset) -> Tensor:
        """How many pixels of the masks of a split each class has."""
        counts = torch.zeros(256, dtype=torch.long)
        for rows in torch.tensor(split.indices).split(256):
            _, masks = loaders.samples_of(split).__getitems__(rows.tolist())
            counts += masks.flatten().long().bincount(minlength=256).cpu()
        return counts[: self.num_classes]

    def save_outputs(self, outputs: dict[str, Tensor], names: list[str], folder: Path) -> None:
        """Writes the most probable class of each pixel as `folder/masks/<name of the image>.png`,
        in the size of the image: class indices with a palette of their colours."""
        root = os.path.commonpath([os.path.dirname(name) for name in self.predict_names])
        colors = self.facts["class_colors"]
        masks = outputs["probability"].argmax(dim=1).byte().cpu()
        for mask, name in zip(masks, names, strict=True):
            image = Image.fromarray(mask.numpy())
            image.putpalette([number for color in colors for number in color])
            if os.path.isfile(name):
                image = image.resize(image_size(name), Image.Resampling.NEAREST)
            stem = os.path.splitext(os.path.relpath(name, root or "."))[0]
            path = Path(folder, "masks", f"{stem}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def spread_colors(count: int) -> list[list[int]]:
    """So many colours whose hues are far apart."""
    hues = [(0.6 + 0.618 * i) % 1 for i in range(count)]
    return [[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.8, 0.9)] for hue in hues]
