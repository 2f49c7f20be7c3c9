"""What the data sets share that torchvision can download."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.datasets import VisionDataset

from data.images import ImageData, in_memory
from engine.errors import UserError
from engine.samples import TensorSamples
from engine.splits import Rows


class DownloadedImages(ImageData):
    """Base of the sets that come as files, with a test split; validation images are split off.

    Args:
        data_dir: folder of the data sets; what is missing is downloaded to it.
    """

    source: ClassVar[type[VisionDataset]]  # downloads the files
    folder: ClassVar[str]  # of the files, in `data_dir`
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]

    def __init__(self, data_dir: str = "datasets/", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(data_dir).expanduser()

    def read_files(self, paths: list[Path]) -> tuple[Tensor, Tensor]:
        """The images (N, C, H, W) and labels (N,) of a split."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        folder = self.root / self.folder
        files = self.train_files + self.test_files
        if self.predicts_other or all((folder / name).is_file() for name in files):
            return
        try:
            self.source(str(self.root), download=True)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{type(self).__name__} is not in {folder} and cannot be downloaded ({reason}). "
                f"Put these files there, unpacked: {', '.join(files)}."
            ) from error

    def load(self) -> tuple[TensorSamples, Rows]:
        train, train_labels = self.read_split(self.train_files)
        test, test_labels = self.read_split(self.test_files)
        labels = torch.cat([train_labels, test_labels])
        rows = torch.arange(len(labels)).split([len(train), len(test)])
        return in_memory(torch.cat([train, test]), labels), {"train": rows[0], "test": rows[1]}

    def read_split(self, files: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        images, labels = self.read_files([self.root / self.folder / name for name in files])
        fits = images.shape == (len(labels), *self.image_shape)
        if not fits or labels.max() >= self.num_classes:
            raise UserError(
                f"{', '.join(files)} in {self.root / self.folder} hold images of shape "
                f"{tuple(images.shape)}, and {len(labels)} labels up to {labels.max()}; "
                f"{type(self).__name__} has {self.num_classes} classes of images "
                f"{self.image_shape}."
            )
        return images, labels


def read_file(path: Path, reader: Callable[[Path], Any]) -> Any:
    """What `reader` makes of the file; if it fails, the error names the file."""
    try:
        return reader(path)
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(
            f"{path} is damaged ({error!r}): replace it, or delete it to download it again."
        ) from error
