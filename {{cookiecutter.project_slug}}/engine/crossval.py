"""Cross-validates: `python crossval.py --folds 5 [options of train.py]`.

Each fold is an ordinary run that validates on another part of the training data.
"""

import argparse
import sys
from statistics import mean, stdev
from typing import Any

from engine.cli import CONFIGS
from engine.cli import main as cli
from engine.errors import UserError, plain_errors
from engine.processes import make_worker


def fit(options: list[str]) -> tuple[str, str, float]:
    """The run folder, the monitored metric and its best value."""
    sys.argv = [str(CONFIGS.with_name("train.py")), "fit", *options]
    trainer = cli().trainer
    best: Any = trainer.checkpoint_callback
    if best is None or best.best_model_score is None:
        raise UserError("this fit saves no best checkpoint, so there is no score to compare")
    return trainer.default_root_dir, best.monitor, best.best_model_score.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--folds", type=int, default=5)
    arguments, options = parser.parse_known_args()
    folds = arguments.folds
    if folds < 2:
        parser.error(f"--folds is {folds}: it must be 2 or more")
    lines, values = [], []
    for fold in range(folds):
        print(f"Fold {fold} of {folds}", flush=True)
        # A process for each: those that ddp starts serve one fit only.
        with plain_errors(), make_worker() as pool:
            parts = [f"--data.num_folds={folds}", f"--data.fold={fold}"]
            run, metric, value = pool.submit(fit, [*options, *parts]).result()
        lines.append(f"{run}: {metric} {value:.4f}")
        values.append(value)
    print(*lines, f"{metric}: mean {mean(values):.4f}, deviation {stdev(values):.4f}", sep="\n")
