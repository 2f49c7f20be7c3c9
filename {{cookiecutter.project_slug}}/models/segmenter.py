"""Segmentation with any network that gives a logit for each class in each pixel."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from engine import losses
from models.classifier import Batch, Classifier
from models.system import weight_of


class Segmenter(Classifier):
    """Trains a network from images (B, C, H, W) to logits (B, classes, H, W) with cross entropy.

    Args:
        ignore_index: value of pixels that do not count, in masks (B, H, W) of class indices.
        class_colors: red, green and blue of each class, 0 to 255, for pictures.
    """

    monitor = "val/mean_iou"
    mode = "max"

    def __init__(
        self,
        network: nn.Module,
        ignore_index: int = 255,
        class_colors: list[list[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.ignore_index = self.criterion.ignore_index = ignore_index
        self.class_colors = class_colors or []
        self.names = {"share": self.class_names}
        losses.try_torchs(self.criterion, len(self.class_names) or None)

    def loss(self, batch: Batch) -> Tensor:
        images, masks = batch
        logits, masks = self(images), masks.long()
        self.check(logits)
        if not self.training:
            matrix = MulticlassConfusionMatrix(
                logits.shape[1], ignore_index=self.ignore_index, validate_args=False
            )
            self.update_metrics(logits, masks, {"confusion matrix": matrix})
            self.update_metrics(logits, masks)
            self.batch_weight = weight_of(self.criterion, masks)
        # If no pixel counts, the mean is nan: 0 instead.
        return self.criterion(logits, masks).where((masks != self.ignore_index).any(), 0)

    def on_validation_epoch_end(self) -> None:
        for name in [name for name in self.measured if name.endswith("/confusion matrix")]:
            stage, matrix = name.removesuffix("/confusion matrix"), self.measured.pop(name)
            counts = matrix.compute().float()  # a row for each true class
            hits, both = counts.diagonal(), counts.sum(dim=0) + counts.sum(dim=1)
            # Over all images. A class that neither occurs nor is predicted has nan.
            for metric, values in {"iou": hits / (both - hits), "dice": 2 * hits / both}.items():
                shown = {f"{stage}/mean_{metric}": values.nanmean()}
                self.log_dict(shown, prog_bar=metric == "iou", sync_dist=True)
                named = zip(self.class_names or range(len(values)), values, strict=True)
                by_class = {f"{stage}/{metric}_{n}": v for n, v in named if v.isfinite()}
                self.log_dict(by_class, sync_dist=True)
        super().on_validation_epoch_end()

    on_test_epoch_end = on_validation_epoch_end

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Probabilities (B, classes, H, W), and their mean over an image (B, classes)."""
        probability = self(batch[0]).softmax(dim=1)
        return {"share": probability.mean(dim=(2, 3)), "probability": probability}

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images (2 B, C, H, W), each with its predicted classes, then with its mask."""
        images, masks = batch
        pairs = [self.paint(images, each) for each in (self(images).argmax(dim=1), masks.long())]
        return torch.stack(pairs, dim=1).flatten(0, 1), ["prediction", "mask"] * len(images)

    def paint(self, images: Tensor, masks: Tensor) -> Tensor:
        # Mixes colours of classes (B, H, W) into images (B, C, H, W), but for ignored pixels.
        colors = torch.tensor(self.class_colors, device=images.device) / 127.5 - 1
        layers = colors[masks.clamp(max=len(colors) - 1)].permute(0, 3, 1, 2)
        ignored = (masks == self.ignore_index).unsqueeze(1)
        return torch.where(ignored, images, (images + layers) / 2)
