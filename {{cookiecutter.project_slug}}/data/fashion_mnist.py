"""Fashion-MNIST: 70,000 grey images of clothes, 28 x 28."""

from torchvision import datasets

from data.idx import IdxImages


class FashionMNIST(IdxImages):
    class_names = datasets.FashionMNIST.classes
    flip = True
    source = datasets.FashionMNIST
    folder = "FashionMNIST/raw"
