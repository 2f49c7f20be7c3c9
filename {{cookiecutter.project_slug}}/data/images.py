"""What the image sets share: shape and classes, how pixels are scaled, and augmentation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from data.classes import ClassData
from data.image_files import ImageFiles
from data.image_sources import open_images
from engine.errors import UserError
from engine.samples import TensorSamples


class ImageData(ClassData):
    """Base of the image sets: a subclass sets the attributes below and implements `load`.

    A batch is (images, labels). Loaders give uint8 (B, C, H, W) and int64 (B,); on the device the
    images become floats in [-1, 1]. Images that are floats already stay as they are.

    Args:
        augment: vary the training images at random, as `crop_padding` and `flip` say.
    """

    image_shape: tuple[int, int, int]  # channels, height, width
    crop_padding = 0  # `augment` shifts images by up to so many pixels
    flip = False  # `augment` mirrors half of them

    def __init__(self, augment: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @property
    def facts(self) -> dict[str, Any]:
        shape = list(self.image_shape)
        # How files are read, where a subclass has such settings.
        reading = {n: self.hparams[n] for n in ("image_size", "value_range") if self.hparams.get(n)}
        return {**super().facts, "image_shape": shape, "input_shape": shape, **reading}

    def adopt(self, facts: dict[str, Any]) -> None:
        super().adopt(facts)
        self.image_shape = tuple(facts.get("image_shape", self.image_shape))
        if "value_range" in facts:
            self.hparams.value_range = facts["value_range"]

    def read(self, source: Any) -> Any:
        """What `open_images` takes; the labels are unknown, -1."""
        images = open_images(source, channels=self.image_shape[0])
        labels, value_range = torch.full((len(images),), -1), self.hparams.get("value_range")
        return ImageFiles(images, labels, self.image_shape, value_range=value_range)

    def preparation(self) -> nn.Module:
        if "train" not in self.splits:  # files to predict
            return ScaleBytes()
        image, *_ = self.splits["train"][0]
        return ScaleBytes(image.is_floating_point())

    def augment(self, batch: Any) -> Any:
        if not self.hparams.augment:
            return batch
        images, *others = batch
        return random_crop(images, self.crop_padding, self.flip), *others


class ScaleBytes(nn.Module):
    """Turns a raw batch into what a system takes, in fit, `predict` and exported files alike: uint8
    images of a batch (images, ...) become floats in [-1, 1]; float images stay as they are.

    Args:
        floats: whether the images of the fit are floats; bytes, of another range, are refused then.

    Raises:
        UserError: images are not as in the fit.
    """

    def __init__(self, floats: bool = False) -> None:
        super().__init__()
        self.floats = floats

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        if not (images.is_floating_point() if self.floats else images.dtype == torch.uint8):
            wanted = "floats, as in the fit" if self.floats else "bytes (torch.uint8)"
            raise UserError(f"Images of {images.dtype}: give {wanted}")
        return images if self.floats else images.float().div_(127.5).sub_(1), *others


def random_crop(images: Tensor, padding: int, flip: bool) -> Tensor:
    """Augments a batch on its device: pads images (B, C, H, W) with black, crops each to H x W at
    random, mirrors half of them if `flip`. One gather does it all, without a loop over images."""
    batch, channels, height, width = images.shape
    device = images.device
    padded = functional.pad(images, [padding] * 4)
    top, left = torch.randint(2 * padding + 1, (2, batch, 1), device=device)
    columns = torch.arange(width, device=device).expand(batch, -1)
    if flip:
        mirrored = torch.rand(batch, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows = torch.arange(height, device=device) + top
    # Of each pixel (B, H, W), its place in the flattened padded image.
    pixels = rows[:, :, None] * padded.shape[-1] + (columns + left)[:, None, :]
    index = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view_as(images)


def in_memory(
    images: Tensor, labels: Tensor, names: list[str] | None = None, ids: list[str] | None = None
) -> TensorSamples:
    """Images (N, C, H, W), bytes or floats of about -1 to 1, and class indices (N,), as samples.

    Raises:
        UserError: floats with the range of bytes.
    """
    if images.is_floating_point() and images.abs().max() > 16:
        raise UserError(
            f"The images are floats of up to {images.max():.0f}: give them as bytes (torch.uint8), "
            "or scaled to about -1 to 1."
        )
    return TensorSamples((images, labels), labels, names, ids)
