"""MNIST: 70,000 grey images of handwritten digits, 28 x 28."""

from torchvision import datasets

from data.idx import IdxImages

CLASS_NAMES = list("0123456789")


class MNIST(IdxImages):
    class_names = CLASS_NAMES
    source = datasets.MNIST
    folder = "MNIST/raw"
