"""Where the loggers write, and how a continued run goes on in them."""

import csv
import os
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from textwrap import indent
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import loggers
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from engine.compat import step_saved
from engine.errors import UserError
from engine.files import relative, write_rows, written_whole
from engine.records import flat, read_record, read_yaml, root_of
from engine.runs import read_checkpoint
from engine.trainer_settings import as_list

# The argument with which a logger goes on with a run that it has in its store.
IDS = {"WandbLogger": "id", "MLFlowLogger": "run_id", "CometLogger": "experiment_key"}
WANDB_WARNING = "The anonymous setting has no effect and will be removed in a future version."
# Of all settings those that runs are compared by, by their first and not by their last part.
COMPARED = (
    *("seed_everything", "model", "data", "trainer.max_epochs", "trainer.precision"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val"),
)
LEFT_OUT = {
    *("amsgrad", "capturable", "differentiable", "eps", "foreach", "fused", "maximize"),
    *("compile", "data_dir", "decay_all", "num_workers", "on_device", "scheduler_monitor"),
}
# Patterns of the metrics in each chart of the tab CUSTOM SCALARS.
CHARTS = {
    "loss": ["(train|val)/.*loss"],
    "validation": ["val/(?!.*loss)"],
    "learning rate": ["train/lr-"],
}


def place_loggers(
    trainer: Namespace, command: str, run: Path, resume: Path | None, label: tuple
) -> None:
    """Has the configured loggers (and a profiler) write into the run folder; MLflow alone has a
    database for all runs, ``mlflow.db`` beside them. In a fit that resumes, TensorBoard and CSV
    forget what was logged after that checkpoint. The label is a name (or the folder's) and tags."""
    for package, end in (("wandb", "finish"), ("comet_ml", "end")):
        if package in sys.modules:  # the run of an earlier fit in this process
            getattr(sys.modules[package], end)()
    if trainer.logger in (None, True):
        kind = "TensorBoardLogger" if find_spec("tensorboard") else "CSVLogger"
        trainer.logger = Namespace(class_path=f"lightning.pytorch.loggers.{kind}")
    if trainer.logger and (rank_zero_only.rank or trainer.fast_dev_run or command == "predict"):
        # One that writes nothing, since some write as soon as they are made.
        trainer.logger = Namespace(class_path="lightning.pytorch.loggers.CSVLogger")
    ids = {kind: id for part in read_record(run) for kind, id in part.get("loggers", {}).items()}
    loops = read_checkpoint(resume).get("loops") if resume and not rank_zero_only.rank else None
    step = step_saved(loops) if loops else None  # without them it has weights only
    name, tags = label[0] or run.relative_to(root_of(run)).as_posix(), label[1]
    if isinstance(trainer.profiler, Namespace):
        trainer.profiler.init_args.dirpath = str(run)
    for logger in as_list(trainer.logger):
        if not isinstance(logger, Namespace):
            continue
        kind = logger.class_path.rpartition(".")[2]
        arguments = logger.init_args = logger.get("init_args", Namespace())
        if kind in IDS and not arguments.get(IDS[kind]):
            arguments[IDS[kind]] = ids.get(kind)
        if kind in ("TensorBoardLogger", "CSVLogger"):
            arguments.save_dir = str(run)
            arguments.name = arguments.version = ""
        if kind == "TensorBoardLogger":
            logger.class_path = "engine.loggers.TensorBoard"
            arguments.default_hp_metric = False  # `log_settings` does it
            arguments.purge_step = step
            if command != "fit":  # TensorBoard ends a curve where a smaller step comes after
                arguments.sub_dir = command
        elif kind == "CSVLogger":
            logger.class_path = "engine.compat.AppendingCSVLogger"
            if step is not None:
                _drop_rows(run / "metrics.csv", step)
        elif kind == "WandbLogger":
            import wandb

            arguments.save_dir = str(run)
            arguments.name = arguments.get("name") or name
            logger.dict_kwargs = {"tags": tags} | logger.get("dict_kwargs", {})
            # Lightning passes a setting that wandb has dropped; this marks its warning as shown.
            with redirect_stderr(StringIO()):
                wandb.termwarn(WANDB_WARNING, repeat=False)
        elif kind == "MLFlowLogger":
            if not arguments.get("tracking_uri"):
                root = root_of(run).absolute()
                address = arguments.tracking_uri = database_address(root / "mlflow.db")
                artifacts = arguments.artifact_location = (root / "mlflow").as_uri()
                experiment = arguments.get("experiment_name") or "lightning_logs"
                make_experiment(address, experiment, artifacts, root)
            arguments.run_name = arguments.get("run_name") or name
            arguments.tags = dict.fromkeys(tags, "tagged") | (arguments.get("tags") or {})
        elif kind == "CometLogger":
            # An archive for each process that logs: comet_ml gives them all the same random name.
            archive = run / f"comet_{len(list(run.glob('comet_*')))}"
            options = {"offline_directory": str(archive), "display_summary_level": 0}
            options |= {"name": name, "tags": tags}
            if arguments.get("online") is False:
                # Lightning would make an experiment that is neither sent nor kept.
                arguments.online = None
                os.environ["COMET_START_ONLINE"] = "0"
            logger.dict_kwargs = options | logger.get("dict_kwargs", {})


def database_address(path: Path) -> str:
    """The address of a SQLite database, in which `?`, `%` and `#` mean something. Absolute where it
    can be: mlflow keeps one connection for each address."""
    known = path.as_posix()
    if set(known) & set("?%#"):
        known = Path(relative(str(path))).as_posix()
    if set(known) & set("?%#"):
        raise UserError(
            f"{path}: no address of a database can name it; give a --trainer.default_root_dir "
            "without ?, % and #, or --trainer.logger.tracking_uri"
        )
    return f"sqlite:///{known}"


def make_experiment(address: str, name: str, artifacts: str, folder: Path) -> None:
    """Makes the tables and the experiment of a database, one process after another."""
    from filelock import FileLock
    from mlflow import MlflowClient

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".mlflow.lock"):
        client = MlflowClient(address)
        if client.get_experiment_by_name(name) is None:
            client.create_experiment(name, artifacts)


def _drop_rows(path: Path, step: int) -> None:
    if path.exists() and path.stat().st_size:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        column = header.index("step")
        # A kill may have left half a row.
        kept = [row for row in rows if len(row) == len(header) and int(row[column]) < step]
        with written_whole(path) as temporary:
            write_rows(temporary, [header, *kept])


def log_settings(logger: loggers.Logger, path: Path) -> None:
    """Logs the settings that runs are compared by as hyperparameters, by the keys of their options,
    and all of them as the file that has them."""
    known = flat(read_yaml(path) or {}).items()
    kept = {k: v for k, v in known if k.startswith(COMPARED) and v is not None}
    left_out = LEFT_OUT if "data.num_folds" in kept else {"fold", *LEFT_OUT}
    kept = {k: v for k, v in kept.items() if k.rpartition(".")[2] not in left_out}
    settings = {k: v if isinstance(v, str | int | float) else str(v) for k, v in kept.items()}
    logger.log_hyperparams(settings)
    if isinstance(logger, TensorBoard):
        from torch.utils.tensorboard.summary import hparams

        layout = {title: ["Multiline", patterns] for title, patterns in CHARTS.items()}
        logger.experiment.add_custom_scalars({"run": layout})
        _, start, end = hparams(settings, {})
        # Without the first, TensorBoard finds out itself what differs between runs.
        for summary in (start, end):
            logger.experiment.file_writer.add_summary(summary)
    log_file(logger, path)


def log_file(logger: loggers.Logger, path: Path) -> None:
    """Logs a file of settings; to TensorBoard, which takes no files, as a text."""
    experiment: Any = logger.experiment
    if isinstance(logger, loggers.TensorBoardLogger):
        text = path.read_text(encoding="utf-8")
        experiment.add_text(path.stem, indent(text, "    "))  # a block of code in Markdown
    elif isinstance(logger, loggers.MLFlowLogger):
        experiment.log_artifact(logger.run_id, str(path))
    elif isinstance(logger, loggers.WandbLogger):
        experiment.log_artifact(str(path), f"config-{experiment.id}", "config")
    elif isinstance(logger, loggers.CometLogger):
        experiment.log_asset(str(path))


class TensorBoard(loggers.TensorBoardLogger):
    """Lightning's logger, without the charts that would come first, the number of the epoch and the
    learning rates (they are among those of `train`), and with all losses in one chart."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = {f"train/{k}" if k.startswith("lr-") else k: v for k, v in metrics.items()}
        shown = {name: value for name, value in named.items() if name != "epoch"}
        super().log_metrics(shown, step)
