"""Cross-validates, or repeats a fit: `python crossval.py --folds 5 [options of train.py]`.

Each fold validates on another part of the training data; with --seeds each fit has another seed.
The fits are runs in one folder, logs/version_N/fold_0 and so on, and summary.csv has the scores."""

import argparse
import sys
from math import isfinite, nan
from pathlib import Path
from pkgutil import resolve_name
from statistics import mean, stdev

from engine import runs
from engine.cli import CLI
from engine.errors import UserError, plain_errors
from engine.facts import arguments_of
from engine.files import write_rows
from engine.options import read_options, result_of, set_options
from engine.parsing import OWN
from engine.processes import make_worker


def fit(folder: Path, options: list[str]) -> dict[str, float]:
    """The best value of the monitored metric, and the others of that epoch and of a test."""
    set_options(options)
    with plain_errors():
        trainer = CLI(folder).trainer
        result = result_of(folder)
    tests = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("test")}
    return {result["monitor"]: result["best"], **result["metrics"], **tests}


def write_summary(path: Path, scores: dict[str, dict[str, float]]) -> None:
    """A row for each part, then the mean and the deviation of each metric."""
    names = list(next(iter(scores.values())))
    columns = [[score[name] for score in scores.values()] for name in names]
    rows: list[list] = [[part, *score.values()] for part, score in scores.items()]
    rows.append(["mean", *map(mean, columns)])
    rows.append(["deviation", *map(deviation, columns)])
    write_rows(path, [["part", *names], *rows])


def deviation(values: list[float]) -> float:
    """NaN of a single value, and where one is: `stdev` fails there."""
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--folds", type=int, default=5, help="parts that the data is cut into (5)")
    group.add_argument("--seeds", type=int, help="how many fits with the same data instead")
    own, options = parser.parse_known_args()
    OWN.update(vars(own))
    kind, count = ("fold", own.folds) if own.seeds is None else ("seed", own.seeds)
    if count < 2:
        parser.error(f"--{kind}s is {count}: it must be 2 or more")
    scores: dict[str, dict[str, float]] = {}
    with plain_errors():
        settings = read_options(options)
        data = settings.data.class_path
        if kind == "fold" and "num_folds" not in arguments_of(resolve_name(data)):
            raise UserError(f"{data} takes no num_folds and fold; --seeds {count} repeats the fit")
        sets = ["--seed_everything"] if kind == "seed" else ["--data.num_folds", "--data.fold"]
        keys = {word.partition("=")[0].replace(".init_args.", "."): word for word in options}
        if given := [word for key, word in keys.items() if key in sets]:
            raise UserError(f"{given[0]} would not count: --{kind}s {count} sets it for each fit")
        run = runs.new_run(runs.root_folder(settings.trainer))
        try:
            for i in range(count):
                print(f"{kind.capitalize()} {i} of {count}", flush=True)
                part = f"{kind}_{i}"
                more = [f"--data.num_folds={count}", f"--data.fold={i}"]
                more = [f"--seed_everything={i}"] if kind == "seed" else more
                more += [f"--name={settings.name}/{part}"] if settings.name else []
                with make_worker() as pool:  # the processes that ddp starts serve one fit only
                    scores[part] = pool.submit(fit, run / part, [*options, *more]).result()
                write_summary(run / "summary.csv", scores)
        except KeyboardInterrupt:
            sys.exit(f"Interrupted; {len(scores)} of {count} fits have ended: {run}")
        finally:
            if not any(run.iterdir()):
                run.rmdir()
    metric, *_ = scores[part]
    for part, score in scores.items():
        print(f"{run / part}: {metric} {score[metric]:.4f}")
    for name in scores[part]:
        values = [score[name] for score in scores.values()]
        print(f"{name}: mean {mean(values):.4f}, deviation {deviation(values):.4f}")
    print(f"Summary: {run / 'summary.csv'}")
