"""Searches hyperparameters with Optuna: `python sweep.py --trials 50 [options of train.py]`.

Killed, it goes on when it is started again. Each trial is an ordinary run, with the name of the
study among its tags. A --config file is the sweep's if it has one of its keys, else train.py's."""

import os
import sys
import time
import traceback
import warnings
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from engine.cli import CONFIGS
from engine.errors import UserError, mistake_of, plain_errors
from engine.last_checkpoint import command_line
from engine.options import read_options, split_words
from engine.parsing import Parser
from engine.records import read_record
from engine.runs import make_writable

try:
    import optuna

    from engine.trials import as_options, fit, fit_in_worker
except ImportError:
    sys.exit('error: sweep.py needs Optuna: python -m pip install -e ".[sweep]"')

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of plots
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
# Of a trial, not of a whole fit with its settings: how long, on what, and how much it prints.
OF_TRIALS = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"),
    *("devices", "num_nodes", "strategy", "enable_progress_bar", "enable_model_summary"),
)


def conditions(domain: dict[str, Any]) -> dict[str, list]:
    """The choices beside which alone a parameter is drawn, by their keys."""
    when = domain.get("when", {}).items()
    return {key: value if isinstance(value, list) else [value] for key, value in when}


def suggest(trial: optuna.Trial, space: dict[str, dict[str, Any]]) -> None:
    """Draws the parameters of a trial; those with a `when` only beside one of its choices."""
    choices: dict[str, Any] = {}  # of those before
    for key, domain in space.items():
        arguments = dict(domain)
        try:
            when = conditions(arguments)
            arguments.pop("when", None)
            for other, values in when.items():
                if not set(values) <= set(choices.get(other, ())):
                    raise ValueError(f"{other} has no such choice, or stands below")
            choices[key] = arguments.get("choices", ())
            kind = arguments.pop("type", None)
            if kind not in ("float", "int", "categorical"):
                raise ValueError("give its type: float, int or categorical")
            if all(trial.params.get(other) in values for other, values in when.items()):
                getattr(trial, f"suggest_{kind}")(key, **arguments)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"space: {key}: {domain} is not understood: {error}") from error


def tell_failure(trial: optuna.Trial, error: Exception) -> None:
    """Says why a trial has failed: a user's mistake in a sentence."""
    text = mistake_of(error)
    if not text or os.environ.get("FULL_TRACEBACK"):
        text = "".join(traceback.format_exception(error))
    print(f"Trial {trial.number} failed with parameters {trial.params}: {text}", file=sys.stderr)


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
    run, config = Path(best.user_attrs["run"]), yaml.safe_load(best.user_attrs["config"])
    for key in OF_TRIALS:
        if f"trainer.{key}" not in best.params:
            config["trainer"].pop(key, None)
    del config["name"], config["tags"]
    path = folder / "best.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    # The folder may be gone, or have come to be another run's.
    results = [part.get("result", {}) for part in read_record(run)]
    found = [result["metrics"] for result in results if result.get("best") == best.value]
    figures, place = (found[0], run) if found else ({}, "whose run is gone")
    others = "".join(f", {name} {value:.4g}" for name, value in figures.items() if name != monitor)
    print(f"Best: {monitor} {best.value:.4g}{others} in trial {best.number}, {place}")
    again = command_line("python", os.path.relpath(sys.argv[0]), "fit", "--config", str(path))
    print(f"Fit with its settings: {again}")


def sweep(
    space: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    trials: int = 20,
    workers: int = 1,
    study: str = "default",
    storage: str = "sqlite:///logs/sweeps.db",
    sampler: optuna.samplers.BaseSampler | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    options: list[str] | None = None,
) -> None:
    """Searches for the best hyperparameters of train.py.

    Args:
        space: keys of train.py's configuration, with arguments of Optuna's suggest functions.
        settings: keys that are the same in all trials; options of train.py come after them.
        trials: how many the study shall have in all.
        workers: processes that fit at the same time.
        study: its name; an old one is continued.
        storage: the database of the studies, as an SQLAlchemy URL.
        sampler: chooses the parameters; by default TPE.
        pruner: stops trials; by default those worse than the median.
        options: of train.py, in all trials.
    """
    for name, count in {"workers": workers, "trials": trials}.items():
        if count < 1:
            raise UserError(f"--{name} {count}: it must be 1 or more")
    if sum(word.startswith("--settings.") for word in sys.argv) > 1:
        raise UserError("only the last --settings.KEY would count; write all into a --config file")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # `tell_failure` does it
    asked = optuna.create_study()
    suggest(example := asked.ask(), space)  # is it well formed?
    fixed = [*as_options(settings), *(options or [])]
    # Each class has to take its arguments: better now than in the middle of the search.
    examples = [example.params]
    choices = [(key, one) for key, domain in space.items() for one in domain.get("choices", ())]
    for key, one in choices:
        if one != example.params.get(key):
            when = {other: values[0] for other, values in conditions(space[key]).items()}
            asked.enqueue_trial(example.params | when | {key: one})
            suggest(other := asked.ask(), space)
            examples.append(other.params)
    checkpoints = [
        read_options([*fixed, *as_options(params)]).best_checkpoint for params in examples
    ]
    best, *others = ({"monitor": one.monitor, "mode": one.mode} for one in checkpoints)
    if any(other != best for other in others):
        raise UserError(
            "Its choices are judged by several metrics, which cannot be compared: give one, as "
            f"--best_checkpoint.monitor {best['monitor']} --best_checkpoint.mode {best['mode']}"
        )
    folder = Path("logs", study)
    make_writable(folder, "a search writes to the folder in which it is started")
    database = connect(storage)
    direction: Any = f"{best['mode']}imize"
    found = optuna.create_study(
        study_name=study, storage=database, direction=direction, pruner=pruner, load_if_exists=True
    )
    goal: dict[str, Any] = {"space": space, "settings": settings, "best_checkpoint": best}
    if options:
        goal["options"] = options
    if found.user_attrs.get("goal", goal) != goal:
        raise UserError(f"Study {study} has another space, settings or metric: name another")
    found.set_user_attr("goal", goal)

    def objective(trial: optuna.Trial) -> float:
        # Its own seed: after a restart, or beside another sweep.py, it would suggest the same.
        found.sampler = sampler or optuna.samplers.TPESampler(seed=trial.number, constant_liar=True)
        suggest(trial, space)
        for other in found.get_trials(deepcopy=False, states=FINISHED[:1]):
            if other.params == trial.params and other.value is not None:
                for key, value in other.user_attrs.items():
                    trial.set_user_attr(key, value)
                return other.value
        try:
            return (fit if workers == 1 else fit_in_worker)(trial, fixed)
        except Exception as error:
            if not isinstance(error, optuna.TrialPruned):
                tell_failure(trial, error)
            raise

    def left() -> int:
        return max(trials - len(found.get_trials(deepcopy=False, states=FINISHED)), 0)

    def progress(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        figures = {best["monitor"]: trial.value, **trial.params}.items()
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures)
        result = f"{trial.state.name.lower()}: {', '.join(shown)}"
        print(f"{trials - left()}/{trials}: trial {trial.number} {result}")
        if not left():
            study.stop()  # others may be at work on the same study

    if not left():
        print(f"Study {study} has its {trials} trials; a larger --trials adds some")
    while attempts := left():
        found.optimize(objective, attempts, n_jobs=workers, catch=[Exception], callbacks=[progress])
        if left() == attempts:
            raise UserError(f"None of {attempts} trials came to an end; the reasons are above")
    conclude(found, best["monitor"], folder)


def main() -> None:
    with plain_errors():
        try:
            default = str(CONFIGS / "sweep" / "default.yaml")
            parser = Parser(description=__doc__, allow_abbrev=False)
            parser.default_config_files = [default]
            parser.add_argument("--config", action="config")
            parser.add_function_arguments(sweep, skip={"options"})
            own, options = split_words(sys.argv[1:], {*signature(sweep).parameters} - {"options"})
            given = parser.instantiate(parser.parse_args(own))
            given.pop("config")
            sweep(**given.as_dict(), options=options)
        except (KeyboardInterrupt, SystemExit) as stop:
            if getattr(stop, "code", 130) not in (130, 143):  # what a fit ends with at a signal
                raise
            sys.exit("Interrupted; the same command goes on with the study")
