"""A few random images in Fashion-MNIST's own file format."""

from pathlib import Path

from tests.small_data.idx import write_set


def write(folder: Path) -> list[str]:
    return write_set(folder, "FashionMNIST")
