"""Run folders and the checkpoints in them: `logs/version_N/checkpoints/{best,last}.ckpt`."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.utilities.load import _load_distributed_checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

Word = Literal["best", "last"]


class CheckpointError(ValueError):
    """No such checkpoint, or one that does not fit the data."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill leaves the old checkpoint whole. Reads
    the weights of sharded checkpoints, too."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        if Path(path).is_dir():
            return _load_distributed_checkpoint(Path(path))
        return super().load_checkpoint(path, map_location, weights_only)


def new_run(root: Path) -> Path:
    """Makes the next `version_N` folder under `root`; safe with several processes at once."""
    root.mkdir(parents=True, exist_ok=True)
    number = max((_number(run) for run in root.glob("version_*")), default=-1)
    while True:
        number += 1
        run = root / f"version_{number}"
        try:
            run.mkdir()
        except FileExistsError:
            continue
        return run


def is_in_run(checkpoint: Path) -> bool:
    """Whether a checkpoint lies in a run folder, where a fit can go on."""
    return checkpoint.absolute().parent.name == "checkpoints"


def run_of(checkpoint: Path) -> Path:
    """Where evaluations of a checkpoint are written: its run folder, or the folder it lies in."""
    folder = checkpoint.absolute().parent
    return folder.parent if is_in_run(checkpoint) else folder


def find_checkpoint(name: str, default: Word, root: Path) -> Path:
    """Resolves what a user may call a checkpoint.

    Args:
        name: the path of a checkpoint, a run folder, or `best` or `last` of the newest run.
        default: which checkpoint of a run folder is meant.
        root: the folder of the runs.

    Raises:
        CheckpointError: nothing was found; names the runs that have a checkpoint.
    """
    if name in ("best", "last"):
        runs = sorted(root.glob("version_*"), key=_number, reverse=True)
        candidates = [path for run in runs if (path := _in_run(run, name))]
        if candidates:
            return candidates[0]
    path = Path(name)
    if _description(path):
        return path
    if path.is_dir() and (found := _in_run(path, default)):
        return found
    runs = sorted((run for run in root.glob("version_*") if _checkpoints(run)), key=_number)
    listing = "\n".join(
        f"  {run}: {', '.join(path.stem for path in _checkpoints(run))}" for run in runs
    )
    raise CheckpointError(
        f"--ckpt_path {name}: no checkpoint there. "
        + (
            f"Runs that have one:\n{listing}"
            if runs
            else f"No run under {root} has one; train first"
        )
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint says, without reading its weights."""
    try:
        return torch.load(
            _description(path) or path, map_location="meta", weights_only=True, mmap=True
        )
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"--ckpt_path {path}: not a readable checkpoint: {error}") from error


def check_data(checkpoint: Path | None, fact: str, trained: Any, given: Any) -> Any:
    """What the network is to be made for: what the data gives, if the checkpoint was trained on it.

    Raises:
        CheckpointError: it was trained on other data.
    """
    trained = tuple(trained) if isinstance(trained, list) else trained
    if given not in (0, trained):  # a folder of images to predict has no classes
        raise CheckpointError(
            f"{checkpoint} was trained with {fact} {trained}, "
            f"but this data has {fact} {given}; choose data or a checkpoint that fit"
        )
    return trained


def _number(run: Path) -> int:
    digits = run.name.removeprefix("version_")
    return int(digits) if digits.isdecimal() else -1


def _description(path: Path) -> Path | None:
    """The file that holds all but the weights: the checkpoint itself, or in the folder of a sharded
    one FSDP's, or one of those that DeepSpeed writes for each process."""
    names = ("meta.pt", "checkpoint/*mp_rank_00_model_states.pt")
    files = [file for name in names for file in sorted(path.glob(name))]
    return path if path.is_file() else next(iter(files), None)


def _in_run(run: Path, word: str) -> Path | None:
    path = run / "checkpoints" / f"{word}.ckpt"
    return path if _description(path) else None


def _checkpoints(run: Path) -> list[Path]:
    return [path for word in ("best", "last") if (path := _in_run(run, word))]
