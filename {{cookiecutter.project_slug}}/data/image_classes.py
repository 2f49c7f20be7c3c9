"""Finds the folders of splits and classes, and the images in them."""

import os
import unicodedata
from collections import Counter
from contextlib import suppress
from filecmp import cmp
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from data.image_sources import extensions, find_images, tell_others
from engine.errors import UserError
from engine.files import SYSTEM_FOLDERS
from engine.splits import SPLITS, Rows

MOST_COMPARED = 20_000
SPLIT_WORDS = {*SPLITS, "training", "valid", "validation", "eval", "testing"}


def subfolders(folder: Path) -> list[str]:
    """The folders in a folder, without hidden ones and those that operating systems add."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    return [name for name in names if not name.startswith(SYSTEM_FOLDERS)]


def find_classes(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each split (only train, if there are none), and the names of the classes.

    Raises:
        UserError: no such folder, none in it, or folders that make no sense as splits or classes.
    """
    if root.is_file():
        raise UserError(f"{root} is a file: give a folder, and unpack it if it is an archive.")
    layout = (
        f"{root}/<train, val or test>/<class>/<image> or {root}/<class>/<image>; --data.data_dir "
        "names another folder"
    )
    if not root.is_dir():
        raise UserError(f"There is no folder {root}. Put images in {layout}.")
    folders = {"train": root}
    top = subfolders(root)
    words = {name.lower() for name in top}
    if words and words <= SPLIT_WORDS and "train" not in top:
        raise UserError(f"{root} has {top}: if these are splits, name them {SPLITS}.")
    if "train" in words:
        folders = {name: root / name for name in top}
        if others := sorted(set(folders) - set(SPLITS)):
            raise UserError(
                f"{root} has {', '.join(others)} beside train: name splits train, val and test. If "
                f"train is a class, put the folders of all classes into one: {root}/train/train, "
                f"{root}/train/{others[0]}."
            )
    names = subfolders(folders["train"])
    if not names:
        raise UserError(f"{folders['train']} has no folders of classes. Put images in {layout}.")
    check_names(folders["train"], names)
    for split, folder in list(folders.items()):
        here = subfolders(folder)
        if not here:
            rank_zero_info(
                f"{folder} has no folders of classes and is left out; --data.predict_dir {folder} "
                "predicts its images."
            )
            del folders[split]
        elif others := sorted(set(here) - set(names)):
            raise UserError(f"{folder} has classes that {folders['train']} has not: {others}.")
    return folders, names


def check_names(folder: Path, names: list[str]) -> None:
    """Raises a UserError for classes that some systems, or people, cannot tell apart."""
    for name in names:
        if name.encode(errors="replace") != os.fsencode(name):
            raise UserError(f"The name of {os.fsencode(folder / name)!r} is not UTF-8: rename it.")
    if len({unicodedata.normalize("NFC", name).lower() for name in names}) < len(names):
        raise UserError(
            f"{folder} has classes that differ in case or Unicode form only: "
            f"{list(map(ascii, names))}."
        )


def least_images(split: str, folders: dict[str, Path]) -> int:
    """How many images a class must have; missing splits are split off from those of train."""
    return 1 + len(SPLITS) - len(folders) if split == "train" else 0


def tell_copies(names: list[str], root: Path) -> None:
    """Warns of images that are others byte for byte: they may be in train and test, or in several
    classes. Files of one size and end are compared, up to their first difference. Those of a large
    set, which takes long to open, are left alone: it is not put together by hand."""
    if len(names) > MOST_COMPARED:
        return
    known: dict[tuple[int, int], str] = {}
    copies = []
    for name in names:
        with suppress(OSError), open(name, "rb") as file:  # an error comes when it is read
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, 1024), os.SEEK_END)
            first = known.setdefault((size, hash(file.read())), name)
            if first != name and cmp(first, name, shallow=False):
                copies.append((first, name))
    if copies:
        one, other = (os.path.relpath(path, root) for path in copies[0])
        rank_zero_warn(
            f"{len(copies)} of {len(names)} images are copies of others, such as {other} of {one}: "
            "a score measured on copies of what was trained on is too good. Remove them, and look "
            "whether some are in several classes"
        )


def list_images(
    root: Path, folders: dict[str, Path], class_names: list[str]
) -> tuple[list[str], Tensor, Rows]:
    """Paths of all images, their labels (N,), and the rows of each split."""
    names: list[str] = []
    labels: list[int] = []
    rows: Rows = {}
    deeper: list[str] = []
    others: Counter[str] = Counter()
    for split, folder in folders.items():
        first, least = len(names), least_images(split, folders)
        few: list[str] = []
        missing: list[str] = []
        for label, class_name in enumerate(class_names):
            here = folder / class_name
            own: Counter[str] = Counter()
            found = find_images(here, own) if here.is_dir() or split == "train" else []
            others += own
            if len(found) < least:
                tell_others(here, own, len(found))
                few.append(f"{class_name} ({len(found)})")
            if not found:
                missing.append(class_name)
            names += found
            deeper += [name for name in found if os.path.dirname(name) != str(here)]
            labels += [label] * len(found)
        if few:
            raise UserError(
                f"{folder} has too few images of {', '.join(few)}: to be split, a class needs "
                f"{least}. Add some, or take its folder away"
            )
        if len(names) == first:
            tell_others(folder, others, 0)
        if missing:
            rank_zero_info(f"{folder} has no images of {', '.join(missing)}.")
        rows[split] = torch.arange(first, len(names))
    tell_others(root, others, len(names))
    if deeper:
        rank_zero_info(
            f"{len(deeper)} of {len(names)} images lie in folders within that of a class, and "
            f"belong to that class, as {deeper[0]}"
        )
    beside = [path for place in {root, *folders.values()} for path in place.glob("[!.]*.*")]
    if loose := sorted(p for p in beside if p.suffix.lower() in extensions() and p.is_file()):
        rank_zero_info(
            f"Left out, since in no folder of a class: {len(loose)} images, as {loose[0]}"
        )
    tell_copies(names, root)
    return names, torch.tensor(labels), rows
