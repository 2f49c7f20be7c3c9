"""Fashion-MNIST: 70,000 grey images of clothes, 28 x 28."""

from torchvision import datasets

from data.idx import IdxImages

CLASS_NAMES = datasets.FashionMNIST.classes


class FashionMNIST(IdxImages):
    class_names = CLASS_NAMES
    flip = True
    source = datasets.FashionMNIST
    folder = "FashionMNIST/raw"
