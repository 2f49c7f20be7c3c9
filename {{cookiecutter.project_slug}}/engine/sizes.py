"""Settings of a data module: those that make no sense, and what auto means for its samples."""

from typing import Any

from engine.errors import UserError


def check_settings(given: Any) -> None:
    """Raises a UserError for settings of a data module that make no sense."""
    workers, fraction = given.num_workers, given.val_fraction
    for name, value, least in ("batch_size", given.batch_size, 1), ("num_workers", workers, 0):
        if value != "auto" and value < least:
            raise UserError(f"{name} is {value}: it must be {least} or more, or auto.")
    if given.on_device is True and workers not in ("auto", 0):
        raise UserError(f"on_device is true: num_workers must be auto, and is {workers}.")
    if given.predict_dir == "":
        raise UserError("predict_dir is empty: give a folder or a file, or leave it out.")
    if fraction != "auto" and not 0 < float(fraction) < 1:
        raise UserError(f"val_fraction is {fraction}: it must lie between 0 and 1, or be auto.")
    folds, fold = given.num_folds, given.fold
    if (folds is not None or fold) and not 0 <= fold < (folds or 0) > 1:
        raise UserError(f"fold is {fold} of {folds}: num_folds must be 2 or more, and fold less")


def batch_size_of(count: int, most: int) -> int:
    """At least a dozen steps in an epoch of `count` samples, of 8 to `most` samples each."""
    size = most
    while size > 8 and count < 12 * size:
        size //= 2
    return size


def fraction_of(val_fraction: float | str, count: int) -> float:
    """The share of `count` samples that is kept for validation. auto: a tenth, or up to a fifth as
    long as that is less than a hundred: a few samples must not choose a checkpoint."""
    if val_fraction != "auto":
        return float(val_fraction)
    return round(min(0.2, max(0.1, 100 / max(count, 1))), 2)


def choose_fraction(data: Any, count: int) -> float:
    """The share of `count` samples that a data module keeps for validation; noted in `chosen`, if
    it was auto and there are no folds. A module that splits otherwise asks first."""
    fraction = fraction_of(data.hparams.val_fraction, count)
    if data.hparams.val_fraction == "auto" and data.hparams.num_folds is None:
        data.chosen.setdefault("val_fraction", fraction)
    return fraction


def choose(data: Any, has_val: bool) -> None:
    """Sets the batch size, and notes in `chosen` what became of the settings; of `val_fraction` not
    where the data set came with its validation split."""
    count, processes = len(data.splits["train"]), data.trainer.world_size if data.trainer else 1
    if data.hparams.batch_size == "auto":
        data.batch_size = batch_size_of(count // processes, data.largest_batch)
        data.chosen["batch_size"] = data.batch_size
    if not has_val:
        choose_fraction(data, count + len(data.splits["val"]))
