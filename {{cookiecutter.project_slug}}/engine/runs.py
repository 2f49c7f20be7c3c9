"""Run folders and the checkpoints in them: `logs/version_N/checkpoints/{best,last}.ckpt`."""

import os
import platform
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryFile, mkdtemp
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.multiprocessing.spawn import ProcessException

from engine.errors import UserError
from engine.files import relative
from engine.records import all_runs, number_of, runs_named


def root_folder(trainer: Any) -> Path:
    """Where the runs lie, by the Trainer's settings."""
    return Path(trainer.default_root_dir or "logs").expanduser()


def run_folder(
    root: Path, checkpoint: Path | None, is_new: bool, writes: bool, folder: Path | None
) -> Path:
    """The folder that a command writes into: that of its checkpoint, or for a new fit a new one
    (`folder`, if given). Only the first process of a fit makes it, and sends it to the others."""
    if checkpoint and not is_new:
        return run_of(checkpoint)
    if folder and writes:
        folder.mkdir(parents=True)
        return folder
    return new_run(root) if writes else root


def make_writable(folder: Path, fix: str = "") -> None:
    """Makes a folder; raises a UserError if nothing can be written there, before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # an empty file has room on a full disk
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): {fix}") from error


def writable(run: Path, root: Path) -> Path:
    """Where an evaluation writes: into the run folder of its checkpoint, if it may."""
    for folder in (run, root / f"of_{run.name}"):
        with suppress(UserError):
            make_writable(folder)
            break
    else:
        folder = Path(mkdtemp(prefix=f"{run.name}-"))
    if folder != run:
        rank_zero_info(f"{run} cannot be written to: what this command writes goes to {folder}")
    return folder


def new_run(root: Path) -> Path:
    """Makes the next `version_N` folder under `root`; safe with several processes at once."""
    make_writable(root, "give --trainer.default_root_dir")
    number = max((number_of(run) for run in root.glob("version_*")), default=-1)
    while True:
        number += 1
        run = root / f"version_{number}"
        with suppress(FileExistsError):
            run.mkdir()
            return run


def hold(run: Path) -> Any:
    """A file that keeps other fits out of a run folder until it is closed, or its process dies;
    where the system knows no locks, as on Windows and some network drives, nobody is kept out."""
    try:
        import fcntl

        file = (run / ".lock").open("a+", encoding="utf-8")
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise UserError(
            f"A fit is running in {run} ({file.read()}): wait until it ends, or stop it. If there "
            f"is none, delete {file.name}"
        ) from error
    except (ImportError, OSError):
        return nullcontext()
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file


def discard_untrained(run: Path, trainer: Trainer | None, error: Exception) -> None:
    """Removes the run folder of a fit that has failed before its first step."""
    # Of the steps that the processes of ddp_spawn have made, this one knows nothing.
    started = isinstance(error, ProcessException) and (run / "run.yaml").exists()
    if not (started or trainer and trainer.global_step):
        shutil.rmtree(run, ignore_errors=True)


def is_in_run(checkpoint: Path) -> bool:
    """Whether a checkpoint lies in a run folder, where a fit can go on."""
    folder = checkpoint.absolute().parent
    return folder.name == "checkpoints" and (folder.parent / "run.yaml").exists()


def run_of(checkpoint: Path) -> Path:
    """Where evaluations of a checkpoint are written: its run folder, or the folder it lies in."""
    folder = checkpoint.absolute().parent
    return Path(relative(folder.parent if is_in_run(checkpoint) else folder))


def find_checkpoint(
    name: str, default: Literal["best", "last"], root: Path, option: str = "--ckpt_path"
) -> Path:
    """Resolves what a user may call a checkpoint: its path, a run folder, the name of a run (there
    it is the default one), or `best` or `last` of the newest run under `root`. Raises a UserError
    if there is none, which names the option, and the checkpoints that there are."""
    name = os.path.expanduser(name)
    if name in ("best", "last"):
        # Of the newest that has any: an older one would be taken for it.
        saving = {path.parent for path in root.glob("version_*/checkpoints/*.ckpt")}
        newest = sorted(saving, key=lambda folder: number_of(folder.parent))[-1:]
        paths = [folder / f"{name}.ckpt" for folder in newest]
        parts = {path.parents[1] for path in root.glob("version_*/*/checkpoints/*.ckpt")}
        part = max(sorted(parts), key=lambda run: number_of(run.parent), default=root)
        if all(number_of(folder.parent) < number_of(part.parent) for folder in newest) and parts:
            raise UserError(
                f"{option} {name}: the newest run, {part.parent}, has several fits: name one, as "
                f"in {option} {part}"
            )
        run = max(root.glob("version_*"), key=number_of, default=root)
        if newest and run != newest[0].parent:
            rank_zero_info(f"The newest run, {run}, has no checkpoint")
    else:
        folders = [Path(name), root / name]
        folders += [] if Path(name, "checkpoints").exists() else runs_named(name, root)
        paths = [Path(name), *(run / "checkpoints" / f"{default}.ckpt" for run in folders)]
    for path in paths:
        if _description(path):
            return path
    there = [one for path in paths[1:] for one in path.parent.glob("*.ckpt")]  # of other names
    saved = [path for run in all_runs(root) for path in run.glob("checkpoints/*.ckpt")]
    what = f"no {default}.ckpt" if there else "no checkpoint"
    saved = sorted(there, key=os.path.getmtime) or saved
    listed = "".join(f"\n  {path}" for path in saved[-6:]) or f" none under {root}; train first"
    raise UserError(f"{option} {name}: {what} there. The newest of {len(saved)}:{listed}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint says, without reading its weights."""
    try:
        file = _description(path) or path
        checkpoint = torch.load(file, map_location="meta", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        # torch's own message speaks of other ways to load the file.
        reason = error if isinstance(error, OSError) else "damaged, or no file of tensors"
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of a fit: Lightning did not write it")
    return checkpoint


def _description(path: Path) -> Path | None:
    """The file that holds all but the weights: the checkpoint itself, or in the folder of a sharded
    one FSDP's, or one of those that DeepSpeed writes for each process."""
    names = ("meta.pt", "checkpoint/*mp_rank_00_model_states.pt")
    files = [file for name in names for file in sorted(path.glob(name))]
    return path if path.is_file() else next(iter(files), None)
