"""Compares runs: what differs in their settings, their best scores, epochs and time.

Trials of sweeps are runs tagged with the study; folds and seeds stand below their mean."""

import argparse
import csv
import re
import sys
from contextlib import suppress
from datetime import timedelta
from math import inf
from operator import eq, ge, gt, le, lt
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import yaml

from engine.errors import UserError, nearest, plain_errors
from engine.files import write_rows
from engine.records import all_runs, config_of, flat, read_record, read_yaml, runs_named

OPERATORS = {"<=": le, ">=": ge, "==": eq, "=": eq, "<": lt, ">": gt}
KEPT = ("run.yaml", "summary.csv")  # in the folder of a run, or of several
# Columns of their own, and what a fit prints.
NO_SETTINGS = ("name", "tags", "trainer.enable_progress_bar", "trainer.enable_model_summary")


class Run:
    """What is known of a run, or of a cross-validation; `root` has all runs."""

    def __init__(self, folder: Path, root: Path) -> None:
        record = read_record(folder)
        self.mode = "min"
        place = folder.relative_to(root) if folder.is_relative_to(root) else folder
        self.columns: dict[str, Any] = {"run": place.as_posix()}
        first, last = folder / "config.yaml", config_of(folder)
        self.settings = flat(read_yaml(first) or {})
        if last != first:
            # It has the system of a checkpoint, with what the data has told it.
            model = {key: v for key, v in self.settings.items() if key.startswith("model.")}
            later = flat(read_yaml(last) or {}).items()
            self.settings = {k: v for k, v in later if not k.startswith("model.")} | model
        if record:
            self.read(folder, record)
        elif (folder / "summary.csv").exists():
            self.read_summary(folder / "summary.csv")

    def read(self, folder: Path, record: list[dict[str, Any]]) -> None:
        results = [part.get("result", {}) for part in record]
        last = results[-1]
        seconds = sum(result.get("seconds", 0) for result in results)
        metrics = [result["metrics"] for result in results if result.get("metrics")]
        path = folder / "checkpoints" / "best.ckpt"
        found = last
        if "best" not in last and path.exists():  # it has not ended, or was killed
            from engine.runs import read_checkpoint  # imports torch, which takes seconds

            monitor = self.settings.get("best_checkpoint.monitor")
            with suppress(UserError):  # it is damaged
                saved = read_checkpoint(path)
                best, *_ = saved.get("figures", {}).get(monitor, [None])
                found = {"monitor": monitor, "best": best, "best_epoch": saved["epoch"]}
        self.mode = found.get("mode", self.settings.get("best_checkpoint.mode"))
        self.columns |= {
            "name": record[-1].get("name"),
            "tags": ",".join(record[-1].get("tags", [])),
            "state": last.get("state", "running, or killed"),
            "epochs": last.get("epochs"),
            "time": str(timedelta(seconds=seconds)) if seconds else None,
            "best": found.get("best"),
            "best_epoch": found.get("best_epoch"),
            "monitor": found.get("monitor"),
            **(metrics[-1] if metrics else {}),
        }

    def read_summary(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            *parts, means, deviations = csv.DictReader(file)
        metric = list(means)[1]
        spread = f" ± {float(deviations[metric]):.4f}" if len(parts) > 1 else ""
        self.columns["state"] = f"mean of {len(parts)}, {metric}{spread}"
        self.columns |= {name: float(means[name]) for name in list(means)[1:]}
        self.columns |= {"best": self.columns[metric], "monitor": metric}

    def value(self, key: str) -> Any:
        return self.columns.get(key, self.settings.get(key))

    def passes(self, condition: str) -> bool:
        """Whether it fulfils a condition such as `model.lr<0.01`, `tags=sgd`, `state!=finished`."""
        key, sign, wanted = parts_of(condition)
        values = str(self.value(key)).split(",") if key == "tags" else [self.value(key)]
        found = any(compared(sign.replace("!", ""), value, wanted) for value in values)
        return found != (sign == "!=")


def parts_of(condition: str) -> tuple[str, ...]:
    found = re.fullmatch(r"(.+?)\s*(<=|>=|!=|==?|<|>)\s*(.*)", condition)
    if not found:
        raise UserError(f"--filter {condition}: give KEY=VALUE, or with !=, <, <=, > or >=")
    return found.groups()


def refuse_unknown(keys: list[str], runs: list[Run]) -> None:
    known = {key for run in runs for key in (*run.columns, *run.settings)}
    for key in keys if runs else ():
        if key not in known:
            near = nearest(key, known)
            raise UserError(f"no run has {key}" + (f". Did you mean {near}?" if near else ""))


def compared(sign: str, value: Any, wanted: str) -> bool:
    """Of numbers; of anything else whether it is the same, or is in YAML: null, true, [8, 8]."""
    try:
        return OPERATORS[sign](float(value), float(wanted))
    except (TypeError, ValueError):
        same = str(value) == wanted
    with suppress(yaml.YAMLError):
        same = same or value == yaml.safe_load(wanted)
    return same and OPERATORS[sign] is eq


def differing(runs: list[Run]) -> list[str]:
    """The settings that are not the same in all runs; an argument, in those that have its class."""
    runs, found = [run for run in runs if run.settings], []
    for key in dict.fromkeys(k for run in runs for k in run.settings if k not in NO_SETTINGS):
        has = [run for run in runs if key in run.settings]
        is_argument = any(key.rpartition(".")[0] in run.settings for run in has)
        if len({repr(run.settings.get(key)) for run in (has if is_argument else runs)}) > 1:
            found.append(key)
    return found


def sort(runs: list[Run], key: str, descending: bool) -> list[Run]:
    """By a column or setting; those that lack it last. By `best` the best come first."""

    def rank(run: Run) -> tuple:
        value = run.value(key)
        number = isinstance(value, int | float)
        if key == "best" and number and run.mode == "max":
            value = -value
        return (not number, value if number else 0, str(value))

    there = [run for run in runs if run.value(key) is not None]
    missing = [run for run in runs if run.value(key) is None]
    return sorted(there, key=rank, reverse=descending) + missing


def show(table: list[list[Any]]) -> None:
    """Prints a table; in a terminal, which may be narrower, in blocks that begin with the run."""
    columns = [[short(value) for value in column] for column in zip(*table, strict=True)]
    runs, *left = [[f"{text:{max(map(len, c))}}" for text in c] for c in columns]
    room = get_terminal_size().columns if sys.stdout.isatty() else inf
    while left:
        block = [runs, left.pop(0)]
        while left and sum(len(column[0]) + 2 for column in [*block, left[0]]) <= room + 2:
            block.append(left.pop(0))
        for row in zip(*block, strict=True):
            print("  ".join(row).rstrip())
        if left:
            print()


def short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    return re.sub(r"^(?:\w+\.)+(?=[A-Z]\w*$)", "", text)  # of a class without its module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="*", help="folders or names; by default all under --root")
    parser.add_argument("--root", type=Path, default=Path("logs"))
    parser.add_argument("--filter", action="append", default=[], help="tags=sgd, 'model.lr<0.01'")
    parser.add_argument("--sort", metavar="KEY", help="a column, a setting, or best")
    parser.add_argument("--descending", action="store_true")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there as well")
    arguments = parser.parse_args()
    with plain_errors():
        folders = [] if arguments.runs else all_runs(arguments.root)
        for name in arguments.runs:
            files = [Path(place, n) for place in (name, arguments.root / name) for n in KEPT]
            places = [file.parent for file in files if file.exists()]
            folders += (found := places[:1] or runs_named(name, arguments.root))
            if not found:
                raise UserError(f"{name}: no folder or name of a run under {arguments.root}")
        runs = [Run(folder, arguments.root) for folder in folders]
        runs = [run for run in runs if len(run.columns) > 1]
        refuse_unknown([parts_of(one)[0] for one in arguments.filter], runs)
        runs = [run for run in runs if all(run.passes(one) for one in arguments.filter)]
        if not runs:
            raise UserError(f"no such run under {arguments.root}")
        if arguments.sort:
            refuse_unknown([arguments.sort], runs)
            runs = sort(runs, arguments.sort, arguments.descending)
        columns = dict.fromkeys(key for run in runs for key in run.columns)
        used = [k for k in columns if any(run.columns.get(k) not in (None, "") for run in runs)]
        header = [*used, *differing(runs)]
        table = [header, *([run.value(key) for key in header] for run in runs)]
        show(table)
        if arguments.csv:
            arguments.csv.parent.mkdir(parents=True, exist_ok=True)
            write_rows(arguments.csv, table)
