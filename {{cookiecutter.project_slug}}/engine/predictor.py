"""A trained system in a notebook or a service: what `predict` does, from Python."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from pkgutil import resolve_name
from threading import Lock
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import instantiate_module

from engine.checkpoint_io import AtomicCheckpointIO
from engine.compat import pop_class_path
from engine.errors import UserError
from engine.facts import arguments_of, check_classes
from engine.predictions import Predictions
from engine.runs import find_checkpoint, read_checkpoint
from engine.warning_filters import silence

PROJECT = Path(__file__).parents[1]
OFF = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
ONE_DEVICE: dict[str, Any] = {"accelerator": "cpu", "devices": 1} | dict.fromkeys(OFF, False)


def load(name: str | Path = "best", **options: Any) -> "Predictor":
    """Makes a predictor of a checkpoint, a run folder, the name of a run, or `best` or `last`.

    What is not found in the current folder is looked for in that of the project. `options` are
    those of Lightning's Trainer: ``load("logs/version_0", precision="bf16-mixed")``."""
    path = find(str(name))
    kind, settings = made_of(path, "datamodule_hyper_parameters")
    # As where other data is predicted: that of the fit need not be here.
    others = {"predict_dir": ".", "num_workers": 0}
    settings |= {key: others[key] for key in others if key in arguments_of(kind)}
    data = instantiate_module(kind, settings)
    state = read_checkpoint(path).get(kind.__qualname__)
    return Predictor(load_system(path), data, state, **options)


def find(name: str) -> Path:
    try:
        return find_checkpoint(name, "best", Path("logs"), "load")
    except UserError:
        if Path.cwd() == PROJECT:
            raise
        here = str(PROJECT / name) if (PROJECT / name).exists() else name
        return find_checkpoint(here, "best", PROJECT / "logs", "load")


def made_of(path: Path, key: str) -> tuple[Any, dict[str, Any]]:
    """The class of a checkpoint's system or data module, and its settings."""
    settings = dict(read_checkpoint(path).get(key, {}))
    if not (class_path := pop_class_path(settings)):
        raise UserError(f"{path} is from a fit in Python: give Predictor its system and data there")
    check_classes({"class_path": class_path, "init_args": settings}, path)
    return resolve_name(class_path), settings


def load_system(path: Path) -> LightningModule:
    """The system of a checkpoint, plain or sharded."""
    kind, _ = made_of(path, "hyper_parameters")
    source: Any = path
    if path.is_dir():
        torch.save(AtomicCheckpointIO().load_checkpoint(path), source := BytesIO())
        source.seek(0)
    return kind.load_from_checkpoint(source, map_location="cpu").eval()


class Predictor:
    """Predicts whatever its data module can `read`, with the preparation of the fit.

    Args:
        system: a trained system.
        data: the data module that it was trained with, or one of the same class and settings.
        state: what the checkpoint says about the data.
        options: of Lightning's Trainer, in the place of `ONE_DEVICE`.
    """

    def __init__(
        self, system: LightningModule, data: Any, state: dict | None = None, **options: Any
    ) -> None:
        if not hasattr(data, "read_inputs"):
            raise UserError(f"{type(data).__name__} has no `read`: let it be a data.base.Data")
        silence()
        self.system, self.data = system, data
        self.found = Found(partial(data.load_state_dict, state) if state else data.read_inputs)
        self.lock = Lock()  # a Trainer serves one thread at a time
        plugins = [LightningEnvironment()]  # whatever job or cluster this process belongs to
        with quiet():
            options = {**ONE_DEVICE, "plugins": plugins, **options}
            self.trainer = Trainer(**options, callbacks=[self.found])
        if self.trainer.num_devices > 1:
            raise UserError("A predictor is one process, and devices are several: give one")

    def __call__(self, source: Any) -> list[dict[str, Any]]:
        """The rows that `predict` writes, a dict for each input, with what no table holds. The
        source is what the data module's `read` takes: a file, folder, files, array, data frame."""
        if source is None:
            raise UserError("There is nothing to predict in None: give what is, such as a file.")
        with self.lock, quiet():
            self.data.hparams.predict_dir = source
            self.trainer.predict(self.system, datamodule=self.data)
        columns = self.found.table
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class Found(Predictions):
    """Keeps the table; has the data module take its state and read what is predicted."""

    def __init__(self, read: Callable[[], None]) -> None:
        super().__init__()
        self.read = read
        self.table: dict[str, list] = {}

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        self.read()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        self.others: dict[str, list] = {}

    def save(self, trainer: Trainer, outputs: dict[str, Any], index: list[int]) -> None:
        for name, found in outputs.items():
            has_rows = isinstance(found, list) or getattr(found, "ndim", 0) > 0
            if has_rows and len(found) == len(index):
                self.others.setdefault(name, []).extend(found)

    def keep(self, trainer: Trainer, table: dict[str, list]) -> None:
        self.table = table | self.others


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning says at the start of everything; also while another thread does so."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        logger.setLevel(min(level, logger.level))
