"""Images in the IDX format that MNIST introduced."""

from pathlib import Path

from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file

from data.downloads import DownloadedImages, read_file


class IdxImages(DownloadedImages):
    """Base of the sets with MNIST's files: grey, 28 x 28."""

    image_shape = (1, 28, 28)
    crop_padding = 2
    train_files = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    test_files = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

    def read_files(self, paths: list[Path]) -> tuple[Tensor, Tensor]:
        images, labels = paths
        return read_file(images, read_image_file).unsqueeze(1), read_file(labels, read_label_file)
