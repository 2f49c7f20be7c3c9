"""Keeps the newest state of a fit in `last.ckpt`, also of a fit that is told to stop."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from engine.compat import log_step, spawns, validates_next
from engine.errors import UserError
from engine.files import relative

# SLURM sends SIGUSR1 (launch/slurm.sbatch asks for it) to a job that has to make way.
SIGNALS = ("SIGINT", "SIGTERM", *(["SIGUSR1"] if "SLURM_JOB_ID" in os.environ else []))


def await_processes(strategy: Strategy) -> None:
    """Leaves Ctrl-C to the processes of ddp_spawn, which Lightning would kill before they save."""

    def receive(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # for a second one

    if spawns(strategy):
        signal.signal(signal.SIGINT, receive)


class LastCheckpoint(Checkpoint):
    """Saves the states from which a fit can be continued exactly, and no others.

    Ctrl-C (SIGINT) or SIGTERM ends the fit after the current step (several processes: after the
    next step that is logged), with a save. A second one ends it at once.

    Args:
        dirpath: the folder; by default ``checkpoints`` in the run folder.
        filename: without its ending; ``{epoch}`` in it becomes ``epoch=3``, ``{val/acc:.2f}``
            ``val_acc=0.97`` and so on.
        save_top_k: 1 keeps the newest save of this fit, -1 all of them, 0 saves nothing.
        every_n_epochs: saves after so many epochs; 0: only after steps, and when a fit stops.
        every_n_train_steps: saves after so many steps of the optimizers as well.
        save_weights_only: leaves out all that a fit needs to go on.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        filename: str = "last",
        save_top_k: Literal[-1, 0, 1] = 1,
        every_n_epochs: int = 1,
        every_n_train_steps: int | None = None,
        save_weights_only: bool = False,
    ) -> None:
        self.names = ModelCheckpoint(dirpath, named(filename), auto_insert_metric_name=False)
        self.save_top_k = save_top_k
        self.every_n_epochs = every_n_epochs
        self.every_n_train_steps = every_n_train_steps
        self.save_weights_only = save_weights_only
        self.received = 0  # the number of a signal
        self.newest = ""  # the path of the last save
        self.saved_step = 0
        self.step_before = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = str(Path(trainer.default_root_dir, "checkpoints"))
        self.names.dirpath = self.names.dirpath or folder
        self.saved_step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:  # Lightning restores the handlers after the fit
                signal.signal(getattr(signal, name), self.receive)

    def receive(self, signum: int, frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signum
        os.write(2, b"\nStopping after this step; a second signal stops at once\n")

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.step_before = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step_before:  # gradients add up
            return
        # A fit that continued from here would skip what comes next: the validation, or the step of
        # the schedulers at the epoch's end.
        if trainer.is_last_batch or validates_next(trainer):
            return
        self.save_if_due(trainer)
        interval = 1 if trainer.world_size == 1 else max(trainer.log_every_n_steps, 1)
        if trainer.global_step % interval == 0 and self.told_to_stop(trainer):
            log_step(trainer)
            self.stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.is_last_batch:
            self.save_if_due(trainer)
            if self.told_to_stop(trainer):
                self.stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.save(trainer)
        self.save_if_due(trainer)
        if self.told_to_stop(trainer):
            self.stop(trainer)

    def save_if_due(self, trainer: Trainer) -> None:
        """Saves after so many steps, and at an end in mid-epoch, before the rest counts as done."""
        step, every = trainer.global_step, self.every_n_train_steps
        is_due = every and step // every > self.saved_step // every
        least_epochs, least_steps = trainer.min_epochs or 0, trainer.min_steps or 0
        may_stop = trainer.current_epoch >= least_epochs and step >= least_steps
        if is_due or (trainer.should_stop and may_stop) or 0 <= trainer.max_steps <= step:
            self.save(trainer)

    def told_to_stop(self, trainer: Trainer) -> bool:
        """Whether any process has received a signal."""
        return trainer.strategy.reduce_boolean_decision(bool(self.received), all=False)

    def save(self, trainer: Trainer) -> None:
        """Saves, unless this step is saved."""
        step, epoch = trainer.global_step, trainer.current_epoch
        if step == self.saved_step or self.save_top_k == 0 or trainer.fast_dev_run:
            return
        metrics = {"step": torch.tensor(step), "epoch": torch.tensor(epoch)}
        path = self.names.format_checkpoint_name(trainer.callback_metrics | metrics)
        trainer.save_checkpoint(path, self.save_weights_only)
        if self.save_top_k == 1 and self.newest not in ("", path):
            trainer.strategy.remove_checkpoint(self.newest)
        self.newest, self.saved_step = path, step

    def stop(self, trainer: Trainer) -> None:
        self.save(trainer)
        for logger in trainer.loggers:
            logger.save()  # Lightning does not end those in a process of ddp_spawn
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            raise SystemExit
        if self.received == getattr(signal, "SIGUSR1", None):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM's; the loggers are still open
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        # Of the saves of other processes, or of an earlier part of the run, this one knows nothing.
        path = self.newest or self.names.format_checkpoint_name({})
        # It would be again.
        refused = isinstance(exception, UserError | MisconfigurationException) and not self.newest
        fits = trainer.is_global_zero and trainer.state.fn == "fit"
        if fits and not refused and os.path.exists(path):
            path = relative(path)
            print(f"\nThe newest state is {path}. To go on from there:")
            pairs = pairwise(["", *sys.argv])  # each word after the one before it
            words = [w for b, w in pairs if "--ckpt_path" not in (b, w.split("=")[0])]
            print(command_line("python", *words, "--ckpt_path", path))


def named(filename: str) -> str:
    """The name of a checkpoint with those of its metrics, whose slashes would make folders."""
    return re.sub(r"\{([^:}]*)", lambda key: f"{key[1].replace('/', '_')}={key[0]}", filename)


def command_line(*words: str) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
