"""Writes down what ran."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from engine.checkpoint_settings import tell_others
from engine.files import written_whole
from engine.loggers import log_file, log_settings
from engine.monitors import check_place, move
from engine.recipe import Recipe
from engine.records import config_of, filled, read_record, write_record
from engine.results import best_of, figures, why_it_ended

PROJECT = Path(__file__).parents[1]


class RunRecord(Callback):
    """Leaves in the run folder of each fit: ``config.yaml``, every setting; ``run.yaml``, command,
    code, packages and hardware, in the end what came out; ``uncommitted.diff``, what git had not
    committed. One that goes on adds to ``run.yaml``, its diff and, if others, its settings."""

    def __init__(self, config: str, is_new: bool, name: str | None, tags: list[str]) -> None:
        self.config = config
        self.is_new = is_new
        self.label = {"name": name, "tags": tags}
        self.started: datetime | None = None
        self.trains = False

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.fast_dev_run:
            return
        for recipe in (each for each in trainer.callbacks if isinstance(each, Recipe)):
            self.config = filled(self.config, recipe.chosen)
        run = Path(trainer.default_root_dir)
        run.mkdir(parents=True, exist_ok=True)
        started = datetime.now(timezone.utc)
        earlier = read_record(run)
        number = f"_{len(earlier)}" if earlier else ""
        config = config_of(run)
        if is_other := not config.exists() or config.read_text("utf-8") != self.config:
            config = run / f"config{number}.yaml"
            with written_whole(config) as temporary:
                temporary.write_text(self.config, encoding="utf-8")
        known = {name for part in earlier for name in part.get("loggers", ())}
        for logger in trainer.loggers:
            if type(logger).__name__ not in known:
                log_settings(logger, config)
            elif is_other:  # hyperparameters stay, as MLflow and TensorBoard have it
                log_file(logger, config)
        record = {
            **self.label,
            "started": started.isoformat(timespec="seconds"),
            **what_ran(),
            **hardware(trainer),
            # By what a continued run finds its place in the loggers again.
            "loggers": {type(one).__name__: one.version or None for one in trainer.loggers},
        }
        if difference := git("diff", "HEAD"):
            record["git_diff"] = f"uncommitted{number}.diff"
            # As git gives it, in whatever encoding the files have.
            path = run / record["git_diff"]
            path.write_bytes(difference.encode(errors="surrogateescape"))
        write_record(run, [*earlier, record])
        self.started = started

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trains = True

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.conclude(trainer, "finished")

    @rank_zero_only
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        self.conclude(trainer, "stopped" if stopped else f"failed: {type(exception).__name__}")

    def conclude(self, trainer: Trainer, state: str) -> None:
        """Adds to ``run.yaml`` how the fit ended and its best score; drops one that never began."""
        if trainer.state.fn != "fit" or self.started is None:
            return
        run = Path(trainer.default_root_dir)
        record = read_record(run)
        if state.startswith("failed") and not self.trains:
            record.pop()
            for file in (f"config_{len(record)}.yaml", f"uncommitted_{len(record)}.diff"):
                run.joinpath(file).unlink(missing_ok=True)
        else:
            best = best_of(trainer)
            record[-1]["result"] = {
                "state": state,
                **({"ended": why_it_ended(trainer, self.trains)} if state == "finished" else {}),
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "seconds": round((datetime.now(timezone.utc) - self.started).total_seconds()),
                **best,
                "metrics": {name: value for name, (value, *_) in best.get("figures", {}).items()},
            }
        write_record(run, record)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["figures"], checkpoint["settings"] = figures(trainer), self.config
        for name in getattr(trainer.datamodule, "fixed", ()):
            checkpoint["datamodule_hyper_parameters"].pop(name, None)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if not trainer.training and not trainer.global_step and "loops" in checkpoint:
            # What an evaluation logs belongs to the step and epoch of its checkpoint, or after a
            # fit to its end: TensorBoard takes no smaller steps.
            trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
        states, fits = checkpoint.get("callbacks", {}), trainer.state.fn == "fit"
        if fits:
            tell_others(checkpoint.get("settings", self.config), self.config)
        for callback in trainer.checkpoint_callbacks:
            if self.is_new:  # the best so far lies elsewhere
                states.pop(callback.state_key, None)
            elif callback.state_key in states:
                move(states[callback.state_key], callback)
            elif fits and isinstance(callback, ModelCheckpoint):
                check_place(callback)


@cache
def packages() -> dict[str, str]:
    every = (distribution.metadata for distribution in importlib.metadata.distributions())
    found = {one["Name"]: one["Version"] for one in every if one and one["Name"]}  # none broken
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def what_ran() -> dict[str, Any]:
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "git_commit": git("rev-parse", "HEAD").strip() or None,
        "git_untracked": git("ls-files", "--others", "--exclude-standard").splitlines(),
        "python": platform.python_version(),
        "packages": packages(),
    }


def hardware(trainer: Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "device": f"{device.type} {name}".strip(),
        "processes": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": trainer.precision,
    }


def git(*arguments: str) -> str:
    """What a git command prints in the project; nothing outside a repository or without git."""
    try:
        result = subprocess.run(["git", "-C", PROJECT, *arguments], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return result.stdout.decode(errors="surrogateescape")
