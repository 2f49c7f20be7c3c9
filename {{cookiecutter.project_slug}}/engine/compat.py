"""All that touches names which are private to a dependency: there is no public way, for the reason
that stands at each. A newer Lightning may break what is here, and nothing else."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace, _required, _typehints
from lightning.fabric.utilities.load import _load_distributed_checkpoint
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import _InstantiatorFn
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

# Makes systems and data modules, and hands their settings to the checkpoint. What it passes on
# cannot be chosen: links whose target a class has no argument for are among it.
ModuleInstantiator = _InstantiatorFn
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"  # what makes them of a checkpoint
# Of callbacks and systems, each called once in a training step.
STEP_HOOKS = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad"),
    *("on_before_backward", "on_after_backward", "on_before_optimizer_step"),
)


def on_class_swap(function: Callable[[Any, Namespace | None, Namespace], None]) -> None:
    """Has jsonargparse call ``function(parser, old, new)`` where a class takes another's place. Its
    own keeps those arguments of the old class whose names the new class knows too."""
    _typehints.discard_init_args_on_class_path_change = function


def make_optional(parser: ArgumentParser, name: str) -> None:
    """Lets a configuration leave out an argument of a function, which takes no links."""
    _required.clear_required(parser, name)


def pop_class_path(hyper_parameters: dict[str, Any]) -> str | None:
    """The class of a checkpoint's system or data, which the command line puts among
    hyperparameters; those of a fit from Python have none."""
    hyper_parameters.pop("_instantiator", None)
    return hyper_parameters.pop("_class_path", None)


def keep_settings(made: LightningModule | LightningDataModule, settings: dict[str, Any]) -> None:
    """Has checkpoints hold all that makes a system or data module again, also what it ignores."""
    kept = {"_class_path": settings["class_path"], "_instantiator": INSTANTIATOR}
    kept |= {**settings.get("init_args", {}), **settings.get("dict_kwargs", {})}
    kept.pop("init_from", None)  # a checkpoint has its own weights
    made.hparams.update(kept | made.hparams)


def load_sharded(folder: Path) -> dict[str, Any]:
    """A sharded checkpoint, whole. Lightning's own ``consolidate_checkpoint`` ends in a KeyError
    with those of ModelParallelStrategy, and torch's way goes through a second file."""
    return _load_distributed_checkpoint(folder)


def shard_over_all(strategy: ModelParallelStrategy) -> None:
    """Shards the data over all devices of all machines, however many there are: the constructor
    wants their number, or takes each machine for one."""
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes
    strategy._tensor_parallel_size = 1


def find_unused(strategy: Strategy) -> None:
    """Lets ddp leave parameters out: its constructor wants to be told, and `auto` becomes ddp."""
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def spawns(strategy: Strategy) -> bool:
    """Whether a fit runs in processes that this one starts and waits for. Strategies do not say."""
    return isinstance(strategy.launcher, _MultiProcessingLauncher)


def validates_next(trainer: Trainer) -> bool:
    """Whether a validation follows on this step. What decides it are six settings and a clock."""
    fetcher: Any = None  # matters at an epoch's last step only
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def log_step(trainer: Trainer) -> None:
    """Logs the step at hand, as Lightning would after the hook in which a fit stops."""
    trainer._logger_connector.update_train_step_metrics()


def epochs_over(trainer: Trainer) -> int:
    """The epochs of which no batch is left, also between an epoch's last batch and its end: the
    next batches are those of the next epoch."""
    epochs = trainer.fit_loop.epoch_progress.current
    at_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    return epochs.processed + (at_end and epochs.processed < epochs.ready)


def step_logged(trainer: Trainer) -> int:
    """The step that metrics are logged with, which counts batches: ``global_step`` counts the steps
    of each optimizer, and is one more in a validation."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def step_saved(loops: dict[str, Any]) -> int:
    """``step_logged`` of the first step after a checkpoint, given its ``loops``."""
    epochs = loops["fit_loop"]["epoch_progress"]["total"]
    # A checkpoint of mid-epoch is written before its last step is counted.
    mid_epoch = epochs["completed"] == epochs["processed"]
    return loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] + mid_epoch


def skip_idle_hooks(trainer: Trainer, system: LightningModule) -> None:
    """Has Lightning pass over those hooks of a training step that do nothing, as over all that it
    cannot call: for each it would enter its profiler, which takes a tenth of a small step."""
    for one in (*trainer.callbacks, system):
        base = Callback if isinstance(one, Callback) else LightningModule
        for name in STEP_HOOKS:
            if getattr(type(one), name) is getattr(base, name) and name not in vars(one):
                setattr(one, name, None)


def forget_averages(trainer: Trainer) -> None:
    """After a fit, lets a test take the averaged weights, as in a process of its own: Lightning
    would load the newest weights of the checkpoint, and would not swap them."""
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging):
            callback._average_model = None


class AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Takes over the columns of the file that is there; Lightning's deletes it."""
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class AppendingCSVLogger(CSVLogger):
    """Keeps what an earlier part of the run has logged."""

    _experiment: Any

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = AppendingWriter(self.log_dir)
        return self._experiment
