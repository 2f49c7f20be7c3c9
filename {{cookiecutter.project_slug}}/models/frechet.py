"""The Fréchet distance of two sets of images, after the Fréchet Inception Distance (Heusel et al.
2017): taken of the pixels, which needs no network that was trained elsewhere."""

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SIDE = 16  # pixels; larger images are pooled to this before their covariance is taken


class Moments:
    """Mean and covariance of images as vectors of pixels, added up batch by batch."""

    sums: Tensor | None = None

    def update(self, images: Tensor) -> None:
        """Adds (B, C, H, W) images."""
        images = images.detach().float()
        if images.device.type == "mps":  # has no float64
            images = images.cpu()
        if max(images.shape[-2:]) > MAX_SIDE:
            images = F.adaptive_avg_pool2d(images, MAX_SIDE)
        x = images.flatten(1).double()  # the covariance is a small difference of large sums
        x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        sums = x.T @ x  # second moments; the last row and column are the sums and the count
        self.sums = sums if self.sums is None else self.sums + sums

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        assert self.sums is not None, "no images were added"
        sums = self.sums.cpu()
        mean = sums[-1, :-1] / sums[-1, -1]
        return mean, sums[:-1, :-1] / sums[-1, -1] - mean.outer(mean)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Fréchet distance of two Gaussians (Dowson & Landau 1982): the squared distance of the means
    plus tr(A + B - 2 (A B)^(1/2)); NaN if a network has diverged."""
    (mean_a, cov_a), (mean_b, cov_b) = a.mean_and_covariance(), b.mean_and_covariance()
    if not (cov_a.isfinite().all() and cov_b.isfinite().all()):
        return float("nan")
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return distance.item()
