"""torchvision's LRASPP on MobileNetV3 (Howard et al. 2019, arXiv:1905.02244)."""

import torch
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class LRASPP(nn.Module):
    """A light network for large images: it sees them at an eighth and a sixteenth of their size.

    Args:
        image_shape: channels (1 or 3), height and width of the images.
        num_classes: number of logits of a pixel.
        pretrained: start from ImageNet weights of the backbone (downloaded once).
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, pretrained: bool = False
    ) -> None:
        super().__init__()
        if image_shape[0] not in (1, 3):
            raise ValueError(
                f"MobileNetV3 takes images of 1 or 3 channels, and these have {image_shape[0]}: "
                "give torchvision's network another first convolution"
            )
        weights = "DEFAULT" if pretrained else None
        self.lraspp = lraspp_mobilenet_v3_large(num_classes=num_classes, weights_backbone=weights)
        # Pretrained weights expect ImageNet's normalisation; images come in [-1, 1]. Kept in the
        # checkpoint, which is loaded into a network that is not pretrained.
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if not pretrained:
            mean, std = torch.full((3,), 0.5), torch.full((3,), 0.5)
        self.register_buffer("scale", (0.5 / std).view(-1, 1, 1))
        self.register_buffer("shift", ((0.5 - mean) / std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats in [-1, 1] -> (B, num_classes, H, W) logits."""
        images = images.clone(memory_format=torch.channels_last).expand(-1, 3, -1, -1)
        return self.lraspp(images * self.scale + self.shift)["out"]
