"""The command line: Lightning's, with run folders, named callbacks and checkpoints by name."""

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from callbacks import ALWAYS
from engine import checkpoint_settings, runs
from engine.compat import forget_averages, keep_settings
from engine.divergence import Divergence
from engine.errors import UserError, plain_errors
from engine.exact_resume import ExactResume
from engine.facts import refuse_null
from engine.help import default_to_fit, show_wanted
from engine.last_checkpoint import LastCheckpoint, await_processes
from engine.loggers import place_loggers
from engine.monitors import BestCheckpoint, Monitors, PatientStopping, choose_monitors
from engine.parsing import Parser, hand_on_settings, name_classes, tell_swaps
from engine.predictions import Predictions
from engine.recipe import Recipe, await_data
from engine.records import label_of, read_record
from engine.results import ProgressBar, tell_end, tell_metrics
from engine.run_record import RunRecord
from engine.trainer_settings import allow_clipping, check_numbers, drop_callbacks, headings, prepare

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULTS = [str(CONFIGS / f"{name}.yaml") for name in ("model", "data", "default", "trainer")]
# Always there, each a group of options: --early_stopping.patience 5. `trainer.callbacks` adds more.
CALLBACKS = {
    "recipe": Recipe,
    "best_checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
    "early_stopping": PatientStopping,
    "lr_monitor": LearningRateMonitor,
    "progress_bar": ProgressBar,
    "predictions": Predictions,
    **ALWAYS,
}


class CLI(LightningCLI):
    """What a command does, in its order; then Lightning fits, validates, tests or predicts."""

    config: Namespace

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder  # of a new run; by default the next `version_N`
        self.made: Path | None = None
        self.parsers: list[LightningArgumentParser] = []  # of the subcommands
        files = {name: {"default_config_files": DEFAULTS} for name in self.subcommands()}
        try:
            with ExitStack() as self.held:  # the lock of the run folder
                super().__init__(
                    datamodule_class=LightningDataModule,
                    subclass_mode_data=True,
                    save_config_callback=None,  # RunRecord does it
                    parser_class=Parser,
                    seed_everything_default=42,
                    parser_kwargs={"allow_abbrev": False, **files},
                    auto_configure_optimizers=False,
                )
        except Exception as error:
            if self.made:
                runs.discard_untrained(self.made, getattr(self, "trainer", None), error)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only that of the command line, if it has one: each costs the time of a parser."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in sys.argv[1:2] if name in known} or known

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.parsers.append(parser)
        precision = Literal["highest", "high", "medium"] | None
        help = "See torch.set_float32_matmul_precision."
        parser.add_argument("--float32_matmul_precision", type=precision, help=help)
        help = "Test the best checkpoint after a fit. Off, so that test scores choose no model."
        parser.add_argument("--test_after_fit", type=bool, default=False, help=help)
        parser.add_argument("--name", type=str | None, help="Of the run, for --ckpt_path NAME.")
        parser.add_argument("--tags", type=list[str] | str | None, help="Of the run: --tags a,b")
        for name, callback in CALLBACKS.items():
            parser.add_lightning_class_args(callback, name)
        # Has the data module made before the system, which is told its facts. The link hands on no
        # more than that: what it does is kept, and callbacks that copy the system would copy it.
        target = "model.init_args.data"
        parser.link_arguments("data", target, compute_fn=bool, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Finds the checkpoint; the system and network become those that it was trained with."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        refuse_null(config.as_dict(), {"trainer": Trainer, **CALLBACKS})
        fit = self.config.subcommand == "fit"
        self.subparser = self.parsers[list(self.subcommands()).index(self.config.subcommand)]
        self.root = runs.root_folder(config.trainer)
        self.checkpoint: Path | None = None
        self.saved: dict[str, Any] = {}  # what the checkpoint says
        if fit and config.ckpt_path is None:
            return
        # Without a path Lightning would evaluate a network that was never trained.
        name = "best" if config.ckpt_path is None else config.ckpt_path
        self.checkpoint = runs.find_checkpoint(name, "last" if fit else "best", self.root)
        rank_zero_info(f"Checkpoint: {self.checkpoint}")
        self.saved = saved = runs.read_checkpoint(self.checkpoint)
        if fit and self.checkpoint.is_file() and "optimizer_states" not in saved:
            raise UserError(
                f"{self.checkpoint} holds weights alone, from which no fit goes on; "
                f"--model.init_from {self.checkpoint} begins one with them"
            )
        there = checkpoint_settings.settings_of(saved, fit)
        if "best_checkpoint" in there:
            choose_monitors(config)
        if checkpoint_settings.differ(there, config):
            with checkpoint_settings.as_defaults(self.subparser, there):
                super().parse_arguments(parser, args)
            checkpoint_settings.tell(saved, there, config, self.config[self.config.subcommand])
        self.config[self.config.subcommand].ckpt_path = None  # given later: Lightning reads it all
        self.config = checkpoint_settings.with_model(parser, self.config, saved, self.checkpoint)

    def before_instantiate_classes(self) -> None:
        """Decides where the command writes, and what goes there."""
        self.config = name_classes(self.parser, self.config)
        config = self.config[self.subcommand]
        fits, trainer = self.subcommand == "fit", config.trainer
        choose_monitors(config)
        # Without the paths of this run, so that config.yaml can start a new one.
        settings = config.clone()
        settings.pop("ckpt_path")
        self.settings = self.subparser.dump(settings, skip_unset=False)
        tell_swaps(self.settings)
        if found := re.search(r"\$\{[^}]*\}", self.settings):
            raise UserError(f"{found[0]} in a setting is not filled in: write what it stands for")
        if not fits and {"--name", "--tags"} & {word.split("=")[0] for word in sys.argv}:
            raise UserError("--name and --tags are a fit's: an evaluation leaves its run as it is")
        if fits and (config.model.init_args or {}).get("lr") == 0:
            rank_zero_info("model.lr is 0: nothing will be trained")
        check_numbers({name: config[name] for name in ("trainer", *CALLBACKS)})
        await_data(trainer, config.recipe)
        if config.float32_matmul_precision:
            torch.set_float32_matmul_precision(config.float32_matmul_precision)
        # A fit goes on in the run of its checkpoint, or in a new one if that lies elsewhere.
        self.is_new = fits and not (self.checkpoint and runs.is_in_run(self.checkpoint))
        writes = not (rank_zero_only.rank or trainer.fast_dev_run)
        run = runs.run_folder(self.root, self.checkpoint, self.is_new, writes, self.folder)
        run = run if fits or not writes else runs.writable(run, self.root)
        self.made = run if self.is_new and writes else None
        if fits and writes:
            if not self.is_new:
                runs.make_writable(run, "a copy of its checkpoint elsewhere goes on in a new run")
            self.held.enter_context(runs.hold(run))
        trainer.default_root_dir = str(run)
        for name in ("best_checkpoint", "last_checkpoint"):
            config[name].dirpath = config[name].dirpath or str(run / "checkpoints")
        self.label = label_of(config, [] if self.is_new else read_record(run))
        resume = self.checkpoint if fits and not self.is_new else None
        place_loggers(trainer, self.subcommand, run, resume, self.label)
        self.headings = headings(trainer)
        allow_clipping(config.model, trainer)
        drop_callbacks(self.subparser.callback_keys, config)
        if "verbose" in config:  # `tell_metrics` prints rounded figures
            self.tells, config.verbose = config.verbose, False
        config.ckpt_path = str(self.checkpoint) if self.checkpoint else None
        hand_on_settings(self)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        record = RunRecord(self.settings, self.is_new, *self.label)
        own = [record, ExactResume(), Monitors(), Divergence(), *self.headings]
        self.trainer_defaults["callbacks"] = own
        keep_settings(self.model, self.config_dump["model"])
        keep_settings(self.datamodule, self.config_dump["data"])
        trainer = super().instantiate_trainer(**kwargs)
        prepare(trainer, self.model, self.datamodule, self.best)
        if self.subcommand == "fit":
            await_processes(trainer.strategy)
        return trainer

    @property
    def best(self) -> BestCheckpoint:
        return self.config_init[self.subcommand].best_checkpoint

    def after_fit(self) -> None:
        if self.trainer.is_global_zero:
            tell_end(self.trainer, self.best)
        if self.config.fit.test_after_fit:
            path = self.best.best_model_path or None
            if not (path or self.trainer.fast_dev_run):
                raise UserError("test_after_fit: nothing was validated, so no checkpoint is best")
            forget_averages(self.trainer)
            self.trainer.test(self.model, self.datamodule, ckpt_path=path, verbose=False)
            tell_metrics(self.trainer)

    def after_test(self) -> None:
        if self.tells:
            tell_metrics(self.trainer)

    after_validate = after_test


def main() -> CLI:
    default_to_fit()
    with plain_errors():
        show_wanted(DEFAULTS)
        return CLI()
