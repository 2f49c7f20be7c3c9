"""Fixtures: the command line in this process, on a few samples."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest
import yaml

from engine.cli import CLI, main
from engine.facts import arguments_of

PROJECT = Path(__file__).resolve().parents[1]
CONFIGS = [PROJECT / "configs" / f"{name}.yaml" for name in ("default", "data", "model")]
DEFAULTS = yaml.safe_load("\n".join(path.read_text(encoding="utf-8") for path in CONFIGS))
DATA = DEFAULTS["data"]["class_path"].split(".")[-2]
# Whatever hardware the project is meant for, its tests run on one CPU process.
HARDWARE = [
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"),
    *("--trainer.strategy=auto", "--trainer.precision=32-true", "--trainer.sync_batchnorm=false"),
]
SMALL = [
    *HARDWARE,
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    # Nor do they need the project's logger, which may want an account or a service.
    *("--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=logs"),
]
# Where the data has these settings.
KIND = resolve_name(DEFAULTS["data"]["class_path"])
SETTINGS = {"batch_size": 4, "num_workers": 0}
SMALL += [f"--data.{k}={v}" for k, v in SETTINGS.items() if k in arguments_of(KIND)]
if DEFAULTS["model"]["class_path"] == "models.gan.GAN":
    SMALL.append("--model.num_samples=16")
TWO_BATCHES = [
    *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2"),
    *("--trainer.limit_test_batches=2", "--trainer.limit_predict_batches=2"),
]


def write_small_data(folder: Path) -> list[str]:
    """Makes the small data set, if there is one, and gives the options that point to it."""
    if not (PROJECT / "tests" / "small_data" / f"{DATA}.py").exists():
        return []
    return importlib.import_module(f"tests.small_data.{DATA}").write(folder)


@pytest.fixture(scope="session")
def data_arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_arguments: list[str]
) -> Callable[..., CLI]:
    """`train("test", "--ckpt_path", "best")` is `python train.py test …` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(subcommand: str, *options: str) -> CLI:
        arguments = [subcommand, *SMALL, *TWO_BATCHES, *data_arguments, *options]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        return main()

    return train
