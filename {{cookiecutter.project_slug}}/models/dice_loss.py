"""A loss of segmentation that does not pass over rare classes."""

import torch
from torch import Tensor, nn


class DiceCrossEntropy(nn.CrossEntropyLoss):
    """Cross entropy, plus 1 less the soft Dice coefficient of each class over the batch, their mean
    (Milletari et al. 2016), as in nnU-Net (Isensee et al. 2021). In an evaluation it is the cross
    entropy alone: the coefficient of all images does not follow from those of batches.

    Takes logits (B, classes, H, W) and class indices (B, H, W).
    """

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        cross_entropy = super().forward(logits, masks)
        if not self.training:
            return cross_entropy
        classes = torch.arange(logits.shape[1], device=logits.device)
        counted = (masks != self.ignore_index).unsqueeze(-1)
        truth = (masks.unsqueeze(-1) == classes) & counted  # (B, H, W, classes)
        found = logits.softmax(dim=1).movedim(1, -1) * counted
        hits, both = (part.flatten(0, -2).sum(dim=0) for part in (found * truth, found + truth))
        dice = (2 * hits + 1) / (both + 1)  # 1 for a class that is neither there nor found
        return cross_entropy + 1 - dice.mean()
