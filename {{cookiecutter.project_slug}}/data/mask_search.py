"""Finds the images of a folder, and the mask of each."""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from PIL import Image

from data.image_range import spread
from data.image_sources import find_images
from data.mask_files import ORIENTATION, refuse_alike, stem
from engine.errors import UserError
from engine.splits import SPLITS


def find_splits(root: Path) -> dict[str, Path]:
    """The folder of each split; only train, if there are no splits."""
    folders = [path.parent.name for path in sorted(root.glob("*/images"))]
    if (root / "images").is_dir():
        found, others = {"train": root}, folders
    else:
        found = {name: root / name for name in SPLITS if name in folders}
        others = [name for name in folders if name not in SPLITS]
        for folder in [
            root / name for name in SPLITS if name != "train" and (root / name).is_dir()
        ]:
            if not (folder / "masks").is_dir():
                rank_zero_info(
                    f"{folder} has no masks and is left out; --data.predict_dir {folder} predicts "
                    "its images."
                )
                found.pop(folder.name, None)
    if others:
        raise UserError(
            f"{root} has folders of images that are no split: {', '.join(others)}. Splits are "
            "called train, val and test, and there is no images folder beside them."
        )
    if "train" not in found:
        raise UserError(
            f"There is no folder {root}/images. Put images in {root}/images and their masks in "
            f"{root}/masks, or in {root}/train/images and so on; --data.data_dir names another "
            "folder."
        )
    return found


def find_masks(folder: Path, names: list[str], suffix: str) -> list[str]:
    """The mask of each image: at its place below `masks`, of the same name but for the ending."""
    masks = find_images(folder / "masks")
    refuse_alike(masks)
    known = {os.path.relpath(stem(mask), stem(f"{folder}/masks/")): mask for mask in masks}
    wanted = [os.path.relpath(stem(name), stem(f"{folder}/images/")) + suffix for name in names]
    missing = [i for i, place in enumerate(wanted) if place not in known]
    if missing:
        first = missing[0]
        raise UserError(
            f"{len(missing)} of {len(names)} images have no mask: for {names[first]} there is no "
            f"{folder / 'masks' / wanted[first]}.png (or with another ending); --data.mask_suffix "
            "says what follows the name of the image, as _mask."
        )
    if lossy := [mask for mask in masks if mask.lower().endswith((".jpg", ".jpeg", ".webp"))]:
        rank_zero_warn(f"{lossy[0]}: JPEG and most WebP files change values; keep masks as PNG.")
    if unused := sorted(known.keys() - {*wanted}):
        rank_zero_info(f"{len(unused)} masks have no image, the first is {known[unused[0]]}")
    return [known[place] for place in wanted]


def tell_palettes(masks: list[str], values: Collection[int]) -> None:
    """Warns if a number has different colours in two of some masks: programs that save a palette of
    the colours in an image number them anew in each; and of colours under transparent pixels."""
    first: dict[int, tuple[list[int], str]] = {}
    for path in (masks[i] for i in spread(len(masks), 64)):
        with suppress(Exception), Image.open(path) as image:  # an error comes when it is read
            if image.mode in ("RGBA", "LA") and image.getextrema()[-1] != (255, 255):
                rank_zero_warn(f"{path} is transparent in places: what lies under it counts.")
                return
            colors = image.getpalette("RGB") or []
            for value in values:
                color = colors[3 * value : 3 * value + 3]
                known, other = first.setdefault(value, (color, path)) if color else (color, path)
                if color != known:
                    rank_zero_warn(
                        f"{value} is the colour {known} in {other}, and {color} in {path}. The "
                        "numbers count; if the colours do, give those in class_values."
                    )
                    return


def tell_turned(names: list[str], masks: list[str]) -> None:
    """Warns of an image that is turned as its EXIF data says and whose mask has no such data, if
    the sizes do not tell whether the mask was drawn on it as it is shown, or as it is stored."""
    for i in spread(len(names), 1024):
        with suppress(Exception), Image.open(names[i]) as image, Image.open(masks[i]) as mask:
            turn, other = (each.getexif().get(ORIENTATION, 1) for each in (image, mask))
            if turn != other and (turn < 5 or image.width == image.height):
                rank_zero_warn(
                    f"{names[i]} is turned as its EXIF data says, and its mask {masks[i]} is not: "
                    "see whether they fit. If masks were drawn on images as they are stored, "
                    "remove the EXIF data."
                )
                return
