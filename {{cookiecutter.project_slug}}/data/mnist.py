"""MNIST: 70,000 grey images of handwritten digits, 28 x 28."""

from torchvision import datasets

from data.idx import IdxImages


class MNIST(IdxImages):
    class_names = list("0123456789")
    source = datasets.MNIST
    folder = "MNIST/raw"
