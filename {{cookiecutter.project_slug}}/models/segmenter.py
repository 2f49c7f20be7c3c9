"""Segmentation with any network that gives a logit for each class in each pixel."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from engine import losses
from models.classifier import Classifier

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), class indices (B, H, W)


class Segmenter(Classifier):
    """Trains a network with cross entropy, the mean over pixels. IoU and Dice (F1) of a class count
    the pixels of all images together.

    Args:
        network: maps images (B, C, H, W) to logits (B, num_classes, H, W).
        ignore_index: in the place of a class: the pixel does not count.
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

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.matrices: dict[str, MulticlassConfusionMatrix] = {}

    def loss(self, batch: Batch) -> Tensor:
        images, masks = batch
        logits, masks = self(images).float(), masks.long()
        self.check(logits)
        if not self.training:
            if self.stage not in self.matrices:
                self.matrices[self.stage] = MulticlassConfusionMatrix(
                    logits.shape[1], ignore_index=self.ignore_index, validate_args=False
                ).to(self.device)
            self.matrices[self.stage].update(logits, masks)
            self.measure(logits, masks)
        # Where no pixel counts, the mean of none is no number.
        return self.criterion(logits, masks).where((masks != self.ignore_index).any(), 0)

    def size_of(self, batch: Batch) -> Tensor:
        return (batch[1] != self.ignore_index).sum()

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        for stage, matrix in self.matrices.items():
            counts = matrix.compute().float()  # a row for each true class
            hits, both = counts.diagonal(), counts.sum(dim=0) + counts.sum(dim=1)
            found = {"iou": hits / (both - hits), "dice": 2 * hits / both}
            for metric, values in found.items():
                # A class that is neither there nor predicted has none.
                mean, shown = values.nanmean(), metric == "iou"
                self.log(f"{stage}/mean_{metric}", mean, prog_bar=shown, sync_dist=True)
                for i in values.isfinite().nonzero().flatten().tolist():
                    name = self.class_names[i] if self.class_names else i
                    self.log(f"{stage}/{metric}_{name}", values[i], sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    on_test_epoch_end = on_validation_epoch_end

    def predict_step(
        self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Probabilities (B, num_classes, H, W), and their means, the share of each class in the
        image (B, num_classes)."""
        probability = self(batch[0]).softmax(dim=1)
        return {"share": probability.mean(dim=(2, 3)), "probability": probability}

    def pictures(self, batch: Batch) -> tuple[Tensor, list[str]]:
        """Images under the predicted classes, each beside the same under its mask."""
        images, masks = batch
        predicted = self(images).argmax(dim=1)
        pairs = torch.stack(
            [self.paint(images, predicted), self.paint(images, masks.long())], dim=1
        )
        return pairs.flatten(0, 1), ["prediction", "mask"] * len(images)

    def paint(self, images: Tensor, masks: Tensor) -> Tensor:
        """Mixes colours of classes (B, H, W) into images (B, C, H, W), but for ignored pixels."""
        colors = torch.tensor(self.class_colors, device=images.device) / 127.5 - 1
        counts = (masks != self.ignore_index).unsqueeze(1)
        layers = colors[masks.clamp(max=len(colors) - 1)].permute(0, 3, 1, 2)
        return torch.where(counts, (images + layers) / 2, images.expand(-1, 3, -1, -1))
