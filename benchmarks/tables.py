"""What the models of tables reach beside scikit-learn's, and how fast large files are read.

    python benchmarks/tables.py accuracy   # each model on breast_cancer and diabetes, five seeds
    python benchmarks/tables.py reading    # a CSV file of 1 GB: pyarrow, polars, pandas (as installed)

Accuracy: a seed chooses the test split, the validation split and the weights. Baselines are fitted on
the training and validation rows of the same splits, standardised where they need it, with scikit-learn's
defaults. Everything has one thread. Seconds are those of a fit, without the start of Python. Reading:
each reader has a process of its own and all threads; memory is the most that the process ever had.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import contextlib
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

GOALS = {
    "breast_cancer": ("acc", "accuracy, the best less 0.01"),
    "diabetes": ("rmse", "RMSE + 2 %"),
}
READERS = {
    "pyarrow": "from pyarrow import csv; print(csv.read_csv(path).num_rows)",
    "polars": "import polars; print(polars.read_csv(path, infer_schema_length=None).height)",
    "pandas": "import pandas; print(len(pandas.read_csv(path)))",
}


def baselines(data: str, module, seed: int) -> dict[str, float]:
    """The figure on the test split of each baseline, for the splits of a data module."""
    from sklearn import ensemble, linear_model
    from sklearn.metrics import accuracy_score, root_mean_squared_error
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs, _, targets = (part.numpy() for part in module.splits["train"].dataset.samples)
    train = [*module.splits["train"].indices, *module.splits["val"].indices]
    test = module.splits["test"].indices
    if data == "diabetes":
        linear, kind, score = linear_model.Ridge(), "Regressor", root_mean_squared_error
    else:
        linear, kind = linear_model.LogisticRegression(max_iter=1000), "Classifier"
        score = accuracy_score
    models = {
        "linear": make_pipeline(StandardScaler(), linear),
        "forest": getattr(ensemble, f"RandomForest{kind}")(random_state=seed),
        "boosting": getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=seed),
    }
    return {
        name: score(targets[test], model.fit(inputs[train], targets[train]).predict(inputs[test]))
        for name, model in models.items()
    }


def accuracy(data: str, model: str, seeds: int) -> None:
    import torch
    from projects import ONE_CPU, QUIET, command, inside
    from templates import render_template

    torch.set_num_threads(1)
    metric, _ = GOALS[data]
    found, seconds, others = [], [], []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with inside(render_template(Path(folder), data=data, model=model)):
            for seed in range(seeds):
                options = [*ONE_CPU, *QUIET, f"--data.seed={seed}"]
                start = time.perf_counter()
                cli = command("train", "fit", *options, f"--seed_everything={seed}")
                seconds.append(time.perf_counter() - start)
                others.append(baselines(data, cli.datamodule, seed))
                trainer = command("train", "test", *options, "--ckpt_path=best").trainer
                found.append(trainer.callback_metrics[f"test/{metric}"].item())
    means = {name: mean(other[name] for other in others) for name in others[0]}
    best = max(means.values()) if metric == "acc" else min(means.values())
    goal = f">= {best - 0.01:.3f}" if metric == "acc" else f"<= {best * 1.02:.2f}"
    rest = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    print(
        f"| {data} | {model} | {mean(found):.3f} | {goal} | {rest} | {max(seconds):.0f} |",
        flush=True,
    )


def write_csv(path: Path, size: float) -> None:
    """Numbers with gaps, whole numbers, dates and words, until the file has that size."""
    import numpy as np

    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join([*(f"x{i}" for i in range(12)), "count", "day", "city", "y"]) + "\n")
        while file.tell() < size:
            numbers = random.normal(size=(20_000, 12)).round(6).astype(str)
            numbers[random.random(numbers.shape) < 0.02] = ""
            days = (np.datetime64("2020-01-01") + random.integers(0, 2000, 20_000)).astype(str)
            counts, cities = random.integers(0, 10**6, (2, 20_000)).astype(str)
            rows = zip(numbers.tolist(), counts, days, cities, strict=True)
            file.writelines(
                f"{','.join(values)},{count},{day},city{city[:2]},{count[-1]}.5\n"
                for values, count, day, city in rows
            )


def reading(size: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        write_csv(path, size)
        size = path.stat().st_size
        print("| reader | seconds | MB/s | most memory / size of the file |\n|---|---|---|---|")
        for name, code in READERS.items():
            start = time.perf_counter()
            script = f"path = {str(path)!r}\n{code}\nimport resource, sys\n"
            script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
            result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
            seconds = time.perf_counter() - start
            if result.returncode:
                print(f"| {name} | {result.stderr.strip().splitlines()[-1]} | | |", flush=True)
                continue
            memory = int(result.stdout.split()[-1]) / size
            speed = size / seconds / 1e6
            print(f"| {name} | {seconds:.1f} | {speed:.0f} | {memory:.2f} |", flush=True)
        tell_module(path, size)


def tell_module(path: Path, size: int) -> None:
    """The whole way of our data module, from the file to the tensors."""
    import logging

    from projects import inside
    from templates import render_template

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with inside(render_template(Path(folder), data="csv")):
            from data.csv import CSV

            start = time.perf_counter()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            data = CSV(data_path=str(path), target="y")
            data.setup("fit")
            data.preparation()
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = (after - before) * 1024 / size
    print(f"| ours, to tensors | {seconds:.1f} | {size / seconds / 1e6:.0f} | {memory:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["accuracy", "reading"])
    parser.add_argument("--data", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--models", nargs="+", default=["mlp", "tabular_transformer"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--size", type=float, default=1e9, help="bytes of the file that is read")
    arguments = parser.parse_args()
    if arguments.what == "reading":
        reading(arguments.size)
        return
    print("| data | model | reached | goal | baselines | seconds of the longest fit |")
    print("|---|---|---|---|---|---|")
    for data in arguments.data:
        for model in arguments.models:
            accuracy(data, model, arguments.seeds)


if __name__ == "__main__":
    main()
