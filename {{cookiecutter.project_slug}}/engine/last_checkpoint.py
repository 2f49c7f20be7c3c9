"""Keeps the newest state of a fit in `last.ckpt`, also of a fit that is told to stop."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

# SLURM sends SIGUSR1 (launch/slurm.sbatch asks for it) to a job that has to make way.
SIGNALS = ("SIGINT", "SIGTERM", *(["SIGUSR1"] if "SLURM_JOB_ID" in os.environ else []))


def await_processes(strategy: Strategy) -> None:
    """Leaves Ctrl-C to the processes of ddp_spawn, which Lightning would kill before they save."""

    def receive(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # for a second one

    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        signal.signal(signal.SIGINT, receive)


class LastCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that saves only states from which a fit can be continued exactly.

    Ctrl-C (SIGINT) or SIGTERM ends the fit after the step at hand, with a save; a second one ends
    it at once, and the last save stays as it is. With several processes the step is the next one at
    which they log, or the epoch's last.
    """

    received = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:  # Lightning restores the handlers after the fit
                signal.signal(getattr(signal, name), self.receive)

    def receive(self, signum: int, frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = signum
        os.write(2, b"\nStopping after this step; a second signal stops at once\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        # Not right before a validation or the epoch's end: a fit that continued from there would
        # skip the validation and the step of the schedulers. Nor while gradients add up.
        loop = trainer.fit_loop
        if trainer.is_last_batch or loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            return
        if loop.epoch_loop._should_accumulate():
            return
        super().on_train_batch_end(trainer, pl_module, *args, **kwargs)
        self.save_if_ending(trainer)
        interval = 1 if trainer.world_size == 1 else max(trainer.log_every_n_steps, 1)
        if trainer.global_step % interval == 0:
            if self.told_to_stop(trainer):
                # Lightning would log this step after the hook.
                trainer._logger_connector.update_train_step_metrics()
                self.stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.is_last_batch:
            self.save_or_stop(trainer, pl_module)
            self.save_if_ending(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._every_n_train_steps:
            self.save_once(trainer)  # Lightning saves after steps or after epochs, not after both
        self.save_or_stop(trainer, pl_module)

    def save_or_stop(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_batch_end(trainer, pl_module, None, None, 0)
        if self.told_to_stop(trainer):
            self.stop(trainer)

    def told_to_stop(self, trainer: Trainer) -> bool:
        """Whether any process has received a signal."""
        return trainer.strategy.reduce_boolean_decision(bool(self.received), all=False)

    def save_once(self, trainer: Trainer) -> None:
        """Saves, unless this step is saved."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def save_if_ending(self, trainer: Trainer) -> None:
        """Saves a fit that ends in mid-epoch, before Lightning takes the epoch's rest as done."""
        if trainer.fit_loop.epoch_loop._is_training_done or trainer.should_stop:
            self.save_once(trainer)

    def stop(self, trainer: Trainer) -> None:
        self.save_once(trainer)
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
        super().on_exception(trainer, pl_module, exception)
        path = self.best_model_path
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):  # others have saved
            path = os.path.join(self.dirpath or "", f"{self.filename}.ckpt")
        if os.path.exists(path) and trainer.is_global_zero and trainer.state.fn == "fit":
            path = relative(path)
            print(f"\nThe newest state is {path}. To go on from there:")
            print(command_line("python", *sys.argv, "--ckpt_path", path))


def relative(path: str) -> str:
    """The path from here; the whole path, if that is on another drive of Windows."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return path


def command_line(*words: str) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
