"""Searches hyperparameters with Optuna: `python sweep.py --config configs/sweep/default.yaml`.

Killed, it goes on when it is started again. Each trial is an ordinary run.
"""

import json
import logging
import shutil
import sys
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import auto_cli
from lightning.pytorch import Trainer

from engine.cli import CLI, CONFIGS
from engine.errors import Diverged, UserError, plain_errors
from engine.last_checkpoint import command_line
from engine.monitors import monitored
from engine.processes import make_worker

try:
    import optuna

    from engine.trial_report import Report
except ImportError:
    sys.exit('error: sweep.py needs Optuna: python -m pip install -e ".[sweep]"')

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of plots
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
thread = threading.local()


class TrialCLI(CLI):
    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        super().__init__()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        trainer: Any = super().instantiate_trainer(**kwargs)
        self.report = Report(self.trial, self.config.fit.best_checkpoint.monitor)
        trainer.callbacks.append(self.report)
        self.trial.set_user_attr("run", trainer.default_root_dir)
        return trainer

    def after_fit(self) -> None:
        if self.report.pruned:
            raise optuna.TrialPruned


def fit(trial: optuna.Trial, settings: dict[str, Any]) -> float:
    """The best value of the monitored metric in a run with the parameters of the trial."""
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    values = {**settings, **trial.params}.items()
    options = [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in values]
    sys.argv = [str(CONFIGS.with_name("train.py")), "fit", *QUIET, *options]
    try:
        checkpoint: Any = TrialCLI(trial).trainer.checkpoint_callback
    except Diverged as error:  # not failed, or it would be suggested again
        raise optuna.TrialPruned(str(error)) from error
    return checkpoint.best_model_score.item()


def fit_in_worker(trial: optuna.Trial, settings: dict[str, Any]) -> float:
    """`fit`, in a process that each thread has for itself."""
    if not hasattr(thread, "pool"):
        thread.pool = make_worker()
    try:
        return thread.pool.submit(fit, trial, settings).result()
    except BrokenProcessPool:  # killed, perhaps for its use of memory
        del thread.pool
        raise


def suggest(trial: optuna.Trial, space: dict[str, dict[str, Any]]) -> None:
    for key, domain in space.items():
        arguments = dict(domain)
        try:
            getattr(trial, f"suggest_{arguments.pop('type')}")(key, **arguments)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"space: {key}: {domain} is not understood: {error}") from error


def connect(url: str, tries: int = 3) -> optuna.storages.RDBStorage:
    engine = {"connect_args": {"timeout": 60} if url.startswith("sqlite") else {}}
    try:
        return optuna.storages.RDBStorage(url, engine, heartbeat_interval=5)
    except Exception:  # another sweep.py may be making the tables right now
        if tries == 1:
            raise
        time.sleep(1)
        return connect(url, tries - 1)


def conclude(study: optuna.Study, monitor: str, folder: Path) -> None:
    """Draws the study and writes down its best settings."""
    from optuna.visualization.matplotlib import plot_optimization_history

    if not study.get_trials(deepcopy=False, states=FINISHED[:1]):
        raise UserError("Every trial was stopped early: give more --trials or another pruner")
    figure: Any = plot_optimization_history(study, target_name=monitor).figure
    figure.savefig(folder / "history.png", bbox_inches="tight")
    best = study.best_trial
    config = shutil.copy(Path(best.user_attrs["run"], "config.yaml"), folder / "best.yaml")
    print(f"Best: {monitor} {best.value:.4g} in trial {best.number}, {best.user_attrs['run']}")
    fit_again = command_line("python", "train.py", "fit", "--config", str(config))
    print(f"Fit with its settings: {fit_again}")


def sweep(
    space: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    trials: int = 20,
    workers: int = 1,
    study: str = "default",
    storage: str = "sqlite:///logs/sweeps.db",
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> None:
    """Searches for the best hyperparameters of train.py.

    Args:
        space: keys of train.py's configuration, with arguments of Optuna's suggest functions.
        settings: keys that are the same in all trials.
        trials: how many the study shall have in all.
        workers: processes that fit at the same time.
        study: its name; an old one is continued.
        storage: the database of the studies, as an SQLAlchemy URL.
        sampler: chooses the parameters; by default TPE.
        pruner: stops trials; by default those worse than the median.
    """
    if sum(word.startswith("--settings.") for word in sys.argv) > 1:
        raise UserError("only the last --settings.KEY would count; write all into a --config file")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    suggest(optuna.create_study().ask(), space)  # is it well formed?
    system = yaml.safe_load((CONFIGS / "model.yaml").read_text("utf-8"))["model"]["class_path"]
    monitor, mode = (settings.get(f"best_checkpoint.{key}", "auto") for key in ("monitor", "mode"))
    given = f"--settings.best_checkpoint.monitor {monitor}"
    monitor, mode = monitored(settings.get("model.class_path", system), monitor, mode, given)
    best: dict[str, Any] = {"monitor": monitor, "mode": mode}
    folder = Path("logs", study)
    folder.mkdir(parents=True, exist_ok=True)
    database = connect(storage)
    direction: Any = {"max": "maximize", "min": "minimize"}[best["mode"]]
    found = optuna.create_study(
        study_name=study, storage=database, direction=direction, pruner=pruner, load_if_exists=True
    )
    # Another seed after a restart, or it would suggest the same once more.
    tpe = optuna.samplers.TPESampler(seed=len(found.trials), constant_liar=True)
    found.sampler = sampler or tpe
    goal = {"space": space, "settings": settings, "best_checkpoint": best}
    if found.user_attrs.get("goal", goal) != goal:
        raise UserError(
            f"Study {study} has another space, settings or metric; choose another --study"
        )
    found.set_user_attr("goal", goal)

    def objective(trial: optuna.Trial) -> float:
        suggest(trial, space)
        for other in found.get_trials(deepcopy=False, states=FINISHED[:1]):
            if other.params == trial.params and other.value is not None:
                trial.set_user_attr("run", other.user_attrs["run"])
                return other.value
        return (fit if workers == 1 else fit_in_worker)(trial, settings)

    def left() -> int:
        return max(trials - len(found.get_trials(deepcopy=False, states=FINISHED)), 0)

    def progress(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        result = f"{trial.state.name.lower()}: {trial.value} {trial.params}"
        print(f"{trials - left()}/{trials}: trial {trial.number} {result}")
        if not left():
            study.stop()  # others may be at work on the same study

    while attempts := left():
        found.optimize(objective, attempts, n_jobs=workers, catch=[Exception], callbacks=[progress])
        if left() == attempts:
            raise UserError(f"None of {attempts} trials came to an end; the reasons are above")
    conclude(found, best["monitor"], folder)


def main() -> None:
    with plain_errors():
        try:
            default = str(CONFIGS / "sweep" / "default.yaml")
            auto_cli(sweep, as_positional=False, default_config_files=[default])
        except (KeyboardInterrupt, SystemExit) as stop:
            if getattr(stop, "code", 130) not in (130, 143):  # what a fit ends with at a signal
                raise
            sys.exit("Interrupted; the same command goes on with the study")
