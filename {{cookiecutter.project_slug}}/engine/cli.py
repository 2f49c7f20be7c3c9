"""The command line: Lightning's, with run folders, named callbacks and checkpoints by name."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from callbacks.pictures import Pictures
from engine import runs
from engine.errors import UserError, plain_errors
from engine.last_checkpoint import LastCheckpoint, await_processes
from engine.loggers import place_loggers
from engine.parsing import (
    SWAPS,
    Instantiator,
    Parser,
    allow_clipping,
    asked_for,
    drop_callbacks,
    tell_swaps,
)
from engine.predictions import Predictions
from engine.progress_bar import ProgressBar
from engine.random_state import RandomState
from engine.run_record import RunRecord

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULTS = [str(CONFIGS / f"{name}.yaml") for name in ("model", "data", "default", "trainer")]
# Always there, each a group of options: --early_stopping.patience 5. `trainer.callbacks` adds more.
CALLBACKS = {
    "best_checkpoint": ModelCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "early_stopping": EarlyStopping,
    "lr_monitor": LearningRateMonitor,
    "progress_bar": ProgressBar,
    "pictures": Pictures,
    "predictions": Predictions,
}


class CLI(LightningCLI):
    config: Namespace

    def __init__(self) -> None:
        self.made: Path | None = None
        try:
            super().__init__(
                LightningModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=None,  # RunRecord does it
                parser_class=Parser,
                seed_everything_default=42,
                parser_kwargs={
                    "allow_abbrev": False,
                    **{name: {"default_config_files": DEFAULTS} for name in self.subcommands()},
                },
                auto_configure_optimizers=False,
            )
        except Exception as error:
            if self.made:
                runs.discard_untrained(self.made, getattr(self, "trainer", None), error)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return asked_for(LightningCLI.subcommands())

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        precision = Literal["highest", "high", "medium"] | None
        help = "See torch.set_float32_matmul_precision."
        parser.add_argument("--float32_matmul_precision", type=precision, help=help)
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="Test the best checkpoint after a fit. Off, so that test scores choose no model.",
        )
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        for fact in runs.FACTS:
            parser.link_arguments(
                f"data.{fact}",
                f"model.init_args.network.init_args.{fact}",
                compute_fn=lambda given, fact=fact: self.trained_on.get(fact, given),
                apply_on="instantiate",
            )

    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint; the system and network become those that it was trained with."""
        config = self.config[self.config.subcommand]
        fit = self.config.subcommand == "fit"
        self.root = Path(config.trainer.default_root_dir or "logs")
        self.checkpoint: Path | None = None
        self.trained_on: dict[str, Any] = {}
        self.adapts = False  # whether the data module reads the images of a folder as the fit did
        if fit and not config.ckpt_path:
            return
        # Without a path Lightning would evaluate a network that was never trained.
        name = config.ckpt_path or "best"
        self.checkpoint = runs.find_checkpoint(name, "last" if fit else "best", self.root)
        config.ckpt_path = str(self.checkpoint)
        rank_zero_info(f"Checkpoint: {self.checkpoint}")
        saved = runs.read_checkpoint(self.checkpoint)
        if self.config.subcommand == "predict":
            self.adapts = runs.reads_alike(saved, config.data)
        hparams = saved.get("hyper_parameters", {})
        if "_class_path" in hparams:  # not in the checkpoints of fits from Python
            del hparams["_instantiator"]
            network = hparams.get("network", {}).get("init_args", {})
            facts = {fact: network.pop(fact) for fact in runs.FACTS if fact in network}
            self.trained_on = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
            given, config.model = config.model, None
            swaps = dict(SWAPS)
            model = runs.model_of(hparams, given)
            self.config = self.parser.parse_object(
                {self.config.subcommand: {"model": model}}, self.config
            )
            SWAPS.clear()
            SWAPS.update(swaps)  # those that the user made, not those of the checkpoint
            runs.tell_overruled(given, self.config[self.config.subcommand].model)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        trainer = config.trainer
        # Without the run's own paths, so that config.yaml can start a new run.
        settings = config.clone()
        settings.pop("ckpt_path")
        self.settings = self._parser(self.subcommand).dump(settings, skip_unset=False)
        tell_swaps(self.settings)
        if config.float32_matmul_precision:
            torch.set_float32_matmul_precision(config.float32_matmul_precision)
        resumed = self.checkpoint if self.subcommand == "fit" else None
        if resumed and not runs.is_in_run(resumed):
            resumed = None  # a checkpoint from elsewhere: its fit goes on in a new run
        self.is_new = self.subcommand == "fit" and not resumed
        if self.checkpoint and not self.is_new:
            run = runs.run_of(self.checkpoint)
        elif rank_zero_only.rank or trainer.fast_dev_run:
            run = self.root  # these write nothing; the first process sends the others its folder
        else:
            run = self.made = runs.new_run(self.root)
        trainer.default_root_dir = str(run)
        for name in ("best_checkpoint", "last_checkpoint"):
            config[name].dirpath = config[name].dirpath or str(run / "checkpoints")
        allow_clipping(config.model, trainer)
        place_loggers(trainer, self.subcommand, run, resumed)
        drop_callbacks(self._parser(self.subcommand).callback_keys, config)

    def _add_instantiators(self) -> None:
        for key, kind in (("model", LightningModule), ("data", LightningDataModule)):
            self.parser.add_instantiator(Instantiator(self, key), kind, subclasses=True)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        record = RunRecord(self.settings, self.is_new)
        self.trainer_defaults["callbacks"] = [record, RandomState()]
        trainer = super().instantiate_trainer(**kwargs)
        if not torch.cuda.is_available():
            # Lightning sets it: torch would look on disk for NVIDIA's library in each step of Adam.
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        # Of several ModelCheckpoints, Lightning takes the first as the one to ask.
        last = trainer.checkpoint_callbacks
        trainer.callbacks.sort(key=lambda callback: (callback in last, callback is not self.best))
        runs.save_whole(trainer.strategy)
        if self.subcommand == "fit":
            await_processes(trainer.strategy)
        return trainer

    @property
    def best(self) -> ModelCheckpoint:
        return self._get(self.config_init, "best_checkpoint")

    def after_fit(self) -> None:
        if self.trainer.is_global_zero:
            runs.tell_best(self.best, self.trainer.default_root_dir)
        if self._get(self.config, "test_after_fit"):
            path = self.best.best_model_path or None
            if not (path or self.trainer.fast_dev_run):
                raise UserError("test_after_fit: nothing was validated, so no checkpoint is best")
            for callback in self.trainer.callbacks:
                if isinstance(callback, WeightAveraging):
                    callback._average_model = None  # as in a test; else it tests the newest weights
            self.trainer.test(self.model, self.datamodule, ckpt_path=path)


def main() -> CLI:
    with plain_errors():
        return CLI()
