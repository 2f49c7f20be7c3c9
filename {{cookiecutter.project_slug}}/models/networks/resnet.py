"""torchvision's residual networks, fitted to small images and any number of channels."""

import torch
from torch import Tensor, nn
from torchvision.models import get_model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # pixels; smaller images would shrink to nothing in ImageNet's stem


class ResNet(nn.Module):
    """A residual network by its torchvision name.

    Images of fewer than 64 pixels a side get the stem of the CIFAR experiments (He et al. 2016): a
    3x3 convolution with stride 1 and no max pooling.

    Args:
        image_shape: channels, height and width of the images.
        num_classes: number of logits.
        name: ``resnet18``, ``resnet34``, ``resnet50``, ``resnext50_32x4d``, ``wide_resnet50_2`` …
        pretrained: start from torchvision's ImageNet weights (downloaded once). The first
            convolution is fitted to the channels and, for small images, cut to its centre.
        imagenet_scale: scale the images as ImageNet's weights expect them, also those of a file
            that the system takes with ``init_from``; by default as ``pretrained`` says.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        name: str = "resnet18",
        pretrained: bool = False,
        imagenet_scale: bool | None = None,
    ) -> None:
        super().__init__()
        if "resne" not in name:
            raise ValueError(f"name={name!r} is no residual network; try 'resnet18' or 'resnet50'")
        resnet = get_model(name, weights="DEFAULT" if pretrained else None)
        channels, height, width = image_shape
        weight = resnet.conv1.weight.detach()
        resnet.conv1 = nn.Conv2d(channels, weight.shape[0], 7, stride=2, padding=3, bias=False)
        if min(height, width) < SMALL:
            weight = weight[:, :, 2:5, 2:5]
            resnet.conv1 = nn.Conv2d(channels, weight.shape[0], 3, padding=1, bias=False)
            resnet.maxpool = nn.Identity()
        if pretrained:
            if channels != weight.shape[1]:
                weight = weight.sum(1, keepdim=True).repeat(1, channels, 1, 1) / channels
            resnet.conv1.weight = nn.Parameter(weight.clone())
        self.head = nn.Linear(resnet.fc.in_features, num_classes)
        resnet.fc = nn.Identity()
        self.backbone = resnet
        # Pretrained weights expect ImageNet's normalisation; images come in [-1, 1]. Kept in the
        # checkpoint, which is loaded into a network that is not pretrained.
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if not (pretrained if imagenet_scale is None else imagenet_scale):
            mean, std = torch.tensor([0.5]), torch.tensor([0.5])
        elif channels != len(mean):
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("scale", (0.5 / std).expand(channels).clone().view(-1, 1, 1))
        self.register_buffer("shift", ((0.5 - mean) / std).expand(channels).clone().view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats in [-1, 1] -> (B, num_classes) logits."""
        # Convolutions are faster with channels_last. `clone`, since `contiguous` leaves images of
        # one channel as they are.
        images = images.clone(memory_format=torch.channels_last)
        return self.head(self.backbone(images * self.scale + self.shift))
