"""The trials of sweep.py."""

import json
import logging
import threading
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer

from engine.cli import CLI
from engine.errors import Diverged
from engine.options import result_of, set_options
from engine.processes import make_worker
from engine.records import tags_of

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
thread = threading.local()


class Report(Callback):
    """Tells Optuna the metric after each validation, and stops a trial that is not promising."""

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.trial.report(trainer.callback_metrics[self.monitor].item(), trainer.current_epoch)
            if self.trial.should_prune():
                self.pruned = trainer.should_stop = True


class TrialCLI(CLI):
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        super().__init__()

    def before_instantiate_classes(self) -> None:
        config = self.config.fit
        config.tags = [*tags_of(config.tags), self.trial.study.study_name]
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer: Any = super().instantiate_trainer(**kwargs)
        self.report = Report(self.trial, self.config.fit.best_checkpoint.monitor)
        trainer.callbacks.append(self.report)
        self.trial.set_user_attr("run", trainer.default_root_dir)
        self.trial.set_user_attr("config", self.settings)  # the folder may go
        return trainer

    def after_fit(self) -> None:
        if self.report.pruned:
            raise optuna.TrialPruned


def as_options(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values.items()]


def fit(trial: optuna.Trial, options: list[str]) -> float:
    """The best value of the monitored metric in a run with the parameters of the trial."""
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    set_options([*QUIET, *options, *as_options(trial.params)])
    try:
        run = TrialCLI(trial).trainer.default_root_dir
    except Diverged as error:  # not failed, or it would be suggested again
        raise optuna.TrialPruned(str(error)) from error
    return result_of(Path(run))["best"]


def fit_in_worker(trial: optuna.Trial, options: list[str]) -> float:
    """`fit`, in a process that each thread has for itself."""
    if not hasattr(thread, "pool"):
        thread.pool = make_worker()
    try:
        return thread.pool.submit(fit, trial, options).result()
    except BrokenProcessPool:  # killed, perhaps for its use of memory
        del thread.pool
        raise
