"""Forecasts of the electricity demand by each network, beside those that cost nothing to make.

    python benchmarks/forecasts.py [tcn] [lstm_forecaster] [series_transformer]

Each network is `python train.py` with the default answers on one thread, then `python train.py test`.
The others are last week's value, and exponential smoothing (statsmodels) with a season of a day or
of a week, the longest that it can hold besides each other's; fitted to the same eight weeks, then
brought up to date at each half-hour of the four of the test. Prints mean errors by lead time.
"""

import csv
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from accuracy import run
from templates import MODELS, ROOT

WEEK, DAY, FITTED = 336, 48, 2688  # half-hours
LEADS = (1, 2, 4, 8, 16, 24, 36, 48)
NETWORKS = [name for name, row in MODELS.items() if row["system"] == "forecaster"]
GOAL_SECONDS = 120
Errors = np.ndarray  # MAE and MAPE at each lead time (2, DAY)


def demand() -> np.ndarray:
    sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}"))
    from data.demand import Demand

    return Demand().load_series().steps[:, 0]


def errors(values: np.ndarray, forecasts: np.ndarray) -> Errors:
    """Of forecasts (N, DAY) from each half-hour of the test on."""
    right = np.lib.stride_tricks.sliding_window_view(values[FITTED:], DAY)
    wrong = np.abs(forecasts - right)
    return np.stack([wrong.mean(axis=0), 100 * (wrong / right).mean(axis=0)])


def last_week(values: np.ndarray) -> Errors:
    windows = np.lib.stride_tricks.sliding_window_view(values[FITTED - WEEK :], DAY)
    return errors(values, windows[: len(values) - FITTED - DAY + 1])


def smoothing(values: np.ndarray, season: int) -> Errors:
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    model = ExponentialSmoothing(
        values[:FITTED],
        seasonal="add",
        seasonal_periods=season,
        initialization_method="heuristic",
    ).fit()
    alpha, gamma = (model.params[f"smoothing_{part}"] for part in ("level", "seasonal"))
    level, seasons = model.level[-1], list(model.season[-season:])
    forecasts = []
    for value in values[FITTED : len(values) - DAY + 1]:
        cycle = np.resize(seasons[-season:], DAY)
        forecasts.append(level + cycle)
        before = level
        level = alpha * (value - cycle[0]) + (1 - alpha) * before
        seasons.append(gamma * (value - before) + (1 - gamma) * cycle[0])
    return errors(values, np.stack(forecasts))


def network(model: str) -> tuple[Errors, float]:
    """The errors of a fit with the default answers, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        answers = ["project_slug=cell", "data=demand", f"model={model}", "accelerator=cpu"]
        run(Path(folder), "-m", "cookiecutter", str(ROOT), "--no-input", *answers)
        project = Path(folder, "cell")
        start = time.perf_counter()
        run(project, "train.py", "fit", "--trainer.enable_progress_bar=false")
        seconds = time.perf_counter() - start
        run(project, "train.py", "test", "--ckpt_path=best", "--trainer.enable_progress_bar=false")
        with project.joinpath("logs", "version_0", "lead_times.csv").open() as file:
            rows = list(csv.DictReader(file))
        return np.array([[float(row[name]) for row in rows] for name in ("mae", "mape")]), seconds


def show(name: str, found: Errors, rest: str = "| | |") -> None:
    cells = [f"{mae:.0f} / {mape:.2f}" for mae, mape in found[:, [lead - 1 for lead in LEADS]].T]
    mae, mape = found.mean(axis=1)
    print(f"| {name} | {mae:.0f} / {mape:.2f} | {' | '.join(cells)} {rest}", flush=True)


def main(models: list[str]) -> None:
    values = demand()
    baselines = {
        "last week's value": last_week(values),
        "exponential smoothing, a day's season": smoothing(values, DAY),
        "exponential smoothing, a week's season": smoothing(values, WEEK),
    }
    print(
        f"| MAE in MW / MAPE in % | all | {' | '.join(map(str, LEADS))} "
        f"| leads that are better than all three, of {DAY} | seconds of `train.py`, goal {GOAL_SECONDS} |"
    )
    print(f"|---|---|{'---|' * len(LEADS)}---|---|")
    for name, found in baselines.items():
        show(name, found)
    best = np.min([*baselines.values()], axis=0)
    for model in models:
        found, seconds = network(model)
        better = int((found < best).all(axis=0).sum())
        show(model, found, f"| {better} | {seconds:.0f} |")


if __name__ == "__main__":
    main(sys.argv[1:] or NETWORKS)
