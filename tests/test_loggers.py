"""Each logger is really run, continued and read back: settings, metrics, learning rate, pictures."""

import csv
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from pkgutil import resolve_name
from textwrap import dedent

import pytest
import yaml
from projects import ONE_CPU, QUIET, command, inside
from templates import LOGGERS as TABLE

STEPS = 4  # batches an epoch
NAMED = ["--name=tested", "--tags=a,b"]
OPTIONS = [
    *(*ONE_CPU, *QUIET, f"--trainer.limit_train_batches={STEPS}", "--trainer.limit_val_batches=2"),
    *("--trainer.limit_test_batches=2", "--trainer.log_every_n_steps=2", "--data.batch_size=8"),
    *("--pictures.every_n_epochs=1", "--model.lr=0.00123", "--model.network.width=8"),
    "--model.scheduler.total_steps=12",
]
LOGGERS = "lightning.pytorch.loggers."
# metric: the steps that it is logged at in three epochs (the third in a continued run) and a test
LOGGED = {
    "train/loss": [1, 3, 5, 7, 9, 11],
    "lr-AdamW/pg1": [1, 3, 5, 7, 9, 11],
    "val/loss": [3, 7, 11],
    "val/acc": [3, 7, 11],
    "test/loss": [12],
    "test/acc": [12],
}
PICTURES = 3


@pytest.fixture
def folder(render, tmp_path):
    with inside(render(), tmp_path):
        yield tmp_path


def train(*options: str):
    cli = command("train", *options)
    if wandb := sys.modules.get("wandb"):
        wandb.finish()
        wandb.teardown()  # its service process is still at work on the file: awaits its end
    if comet := sys.modules.get("comet_ml"):
        comet.end()
    return cli


def fit_continue_test(*options: str) -> Path:
    train("fit", *OPTIONS, *options, "--trainer.max_epochs=2", *NAMED)
    train("fit", *OPTIONS, *options, "--trainer.max_epochs=3", "--ckpt_path=tested")
    train("test", *OPTIONS, *options, "--ckpt_path=last")
    [run] = Path("logs").glob("version_*")
    names = {"config.yaml", "run.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert names <= {path.relative_to(run).as_posix() for path in run.rglob("*")}
    return run


def read_tags(run: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    # The number of the epoch, or learning rates, would be the first charts.
    assert {tag.split("/")[0] for tag in events.Tags()["scalars"]} <= {"train", "val", "test"}
    return events.Tags()["tensors"]


def newest_config(run: Path) -> str:
    """Of a fit that went on with other settings: config_1.yaml."""
    return max(path.name for path in run.glob("config*.yaml"))


def logged_configs(run: Path, logger: str) -> list[str]:
    """Of each fit that had the logger the settings, where it wrote others than the one before."""
    parts = enumerate(yaml.safe_load((run / "run.yaml").read_text()))
    numbers = [number for number, part in parts if logger in part["loggers"]]
    files = [f"config_{number}.yaml" if number else "config.yaml" for number in numbers]
    return [name for name in files if (run / name).exists()]


def read_tensorboard(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    metrics = {}
    assert "custom_scalars__config__" in read_tags(run)
    # What evaluations log is apart: TensorBoard ends a curve where a smaller step comes after.
    for folder in filter(Path.is_dir, (run / "test", run)):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            name = tag.replace("train/lr-", "lr-")
            metrics[name] = [event.step for event in events.Scalars(tag)]
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = HParamsPluginData.FromString(hparams).session_start_info.hparams
    settings = {name: getattr(value, value.WhichOneof("kind")) for name, value in settings.items()}
    # Else TensorBoard shows the settings of the first run only, in their order in the alphabet.
    assert "_hparams_/experiment" not in events.summary_metadata
    [text] = [event.tensor_proto.string_val[0] for event in events.Tensors("config/text_summary")]
    assert yaml.safe_load(dedent(text.decode())) == yaml.safe_load(
        (run / "config.yaml").read_text()
    )
    texts = [tag for tag in events.Tags()["tensors"] if tag.endswith("/text_summary")]
    assert texts == [
        f"{Path(name).stem}/text_summary" for name in logged_configs(run, "TensorBoard")
    ]
    return metrics, settings, len(events.Images("val/pictures"))


def read_csv(run: Path):
    metrics: dict[str, list[int]] = {}
    with (run / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    metrics.setdefault(name, []).append(int(row["step"]))
    settings = yaml.safe_load((run / "hparams.yaml").read_text())
    return metrics, flatten(settings), None


def wandb_records(path: Path):
    """The records of wandb's file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, record = path.read_bytes(), 7, b""
    while len(content) - at > 7:
        if 32768 - at % 32768 < 7:  # the rest of a block is padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<4xHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record or its last part
            yield Record.FromString(record)
            record = b""


def read_wandb(run: Path):
    metrics, settings, pictures, ids, files = {}, {}, 0, set(), []
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        for record in wandb_records(path):
            if record.run.run_id:
                ids.add((record.run.run_id, record.run.display_name, *record.run.tags))
            for item in [*record.run.config.update, *record.config.update]:
                settings[item.key] = json.loads(item.value_json)
            row = {
                "/".join(item.nested_key) or item.key: item.value_json
                for item in record.history.item
            }
            for name in row.keys() & LOGGED.keys():
                metrics.setdefault(name, []).append(int(row["trainer/global_step"]))
            pictures += any(name.startswith("val/pictures") for name in row)
            files += [file.path for file in record.artifact.manifest.contents]
    assert files == logged_configs(run, "WandbLogger")
    [(_, *label)] = ids
    assert label == ["tested", "a", "b"]
    return metrics, flatten(settings), pictures


def read_mlflow(run: Path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('logs', 'mlflow.db').absolute()}")
    [experiment] = [e for e in client.search_experiments() if e.name != "Default"]
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "tested"
    assert (found.data.tags["a"], found.data.tags["b"]) == ("tagged", "tagged")
    assert found.info.status == "FINISHED"
    assert not Path("mlruns").exists()
    metrics = {
        name: [metric.step for metric in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    pictures = [
        file
        for file in client.list_artifacts(found.info.run_id, "images")
        if file.path.endswith("png") and "confusion_matrix" not in file.path
    ]
    files = [file.path for file in client.list_artifacts(found.info.run_id) if not file.is_dir]
    assert files == logged_configs(run, "MLFlowLogger")
    return metrics, found.data.params, len(pictures)


def read_comet(run: Path):
    metrics, settings, pictures, ids = {}, {}, 0, set()
    for path in sorted(run.glob("comet_*/*.zip")):
        with zipfile.ZipFile(path) as archive:
            ids.add(json.loads(archive.read("experiment.json"))["offline_id"])
            for line in archive.read("messages.json").splitlines():
                message = json.loads(line)
                payload = message["payload"]
                if message["type"] == "metric_msg":
                    metric = payload["metric"]
                    metrics.setdefault(metric["metricName"], []).append(metric["step"])
                elif message["type"] == "parameter_msg":
                    parameter = payload.get("param") or payload["params"]
                    settings[parameter["paramName"]] = parameter["paramValue"]
                is_picture = payload.get("upload_type") == "visualization"
                pictures += is_picture and b"confusion_matrix" not in line
    assert len(ids) == 1
    return metrics, {k.replace("|", "/"): v for k, v in settings.items()}, pictures


def flatten(tree, prefix=""):
    """By the keys that options have; of lists of dictionaries the numbers."""
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {prefix.replace(".init_args", "").removesuffix(".class_path"): tree}
    branches = [flatten(tree[key], f"{prefix}.{key}" if prefix else str(key)) for key in tree]
    return {name: value for branch in branches for name, value in branch.items()}


READERS = {
    "TensorBoardLogger": ([], read_tensorboard),
    "CSVLogger": (["--trainer.logger.save_dir=logs"], read_csv),
    "WandbLogger": (["--trainer.logger.offline=true"], read_wandb),
    "MLFlowLogger": ([], read_mlflow),
    "CometLogger": (["--trainer.logger.online=false"], read_comet),
}


LOCAL = ("TensorBoardLogger", "CSVLogger")


@pytest.mark.parametrize(
    "logger", [pytest.param(n, marks=[] if n in LOCAL else pytest.mark.slow) for n in READERS]
)
def test_everything_is_logged_and_a_run_continues_in_its_logger(folder, logger):
    options, read = READERS[logger]
    run = fit_continue_test(f"--trainer.logger={logger}", *options)
    metrics, settings, pictures = read(run)
    assert {name: metrics.get(name) for name in LOGGED} == LOGGED
    assert newest_config(run) == "config_1.yaml"
    config = flatten(yaml.safe_load((run / "config.yaml").read_text()))
    assert config["model.lr"] == 0.00123
    assert float(settings["model.lr"]) == 0.00123
    # Those that runs are compared by; all are in a file.
    assert {"model.network.width", "data", "trainer.max_epochs"} <= settings.keys()
    assert len(settings.keys() & config.keys()) < 25
    assert "data.fold" not in settings, "there are no folds"
    assert pictures in (PICTURES, None)
    outside = {path.name for path in Path(".").iterdir()} | {p.name for p in Path("logs").iterdir()}
    outside -= {".mlflow.lock"}  # of fits that make the database at once
    assert outside <= {"logs", "version_0", "mlflow.db", "mlflow"}


# What a run of the logger leaves, seen from its folder.
WRITTEN = {
    "tensorboard": "events.*",
    "csv": "metrics.csv",
    "wandb": "wandb/offline-run-*",
    "mlflow": "../mlflow.db",
    "comet": "comet_0/*.zip",
}


@pytest.mark.parametrize(
    "answer",
    [pytest.param(n, marks=[] if n not in WRITTEN else pytest.mark.slow) for n in TABLE],
)
def test_a_project_made_for_the_logger_logs_without_an_account(render, tmp_path, answer):
    try:
        kind = resolve_name(TABLE[answer]["class_path"])
    except (AttributeError, ImportError) as error:
        place = f"class_path in the row {answer} of _loggers in cookiecutter.json"
        pytest.fail(f"{place}: {error}; what it needs belongs to its `packages`, and is installed")
    with inside(render(logger=answer), tmp_path):
        trainer = train("fit", *OPTIONS, "--trainer.max_epochs=1").trainer
        assert isinstance(trainer.logger, kind)
        if answer in WRITTEN:
            assert list(Path("logs/version_0").glob(WRITTEN[answer]))


def test_checkpoints_of_weights_are_evaluated(folder):
    options = ["--best_checkpoint.save_weights_only=true", "--trainer.logger=false"]
    train("fit", *OPTIONS, *options, "--trainer.max_epochs=1")
    assert train("test", *OPTIONS, *options).trainer.callback_metrics["test/acc"] >= 0


def test_several_loggers_forget_what_came_after_the_checkpoint(folder, caplog):
    """A run that was killed goes on from its last checkpoint and logs those steps again."""
    loggers = [
        {"class_path": f"{LOGGERS}{name}", "init_args": {"save_dir": "elsewhere"}}
        for name in ("CSVLogger", "TensorBoardLogger")
    ]
    Path("several.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    options = [*OPTIONS, "--config=several.yaml"]
    caplog.set_level("INFO", "lightning.pytorch")
    train("fit", *options, "--trainer.max_epochs=1")
    assert "instead of" not in caplog.text, "TensorBoard was not swapped: it is in the list"
    run = Path("logs/version_0")
    early = shutil.copy(run / "checkpoints/last.ckpt", run / "checkpoints/early.ckpt")
    train("fit", *options, "--trainer.max_epochs=3", "--ckpt_path=last")
    train("validate", *options, "--ckpt_path=last")
    train("fit", *options, "--trainer.max_epochs=2", f"--ckpt_path={early}")
    for read in (read_csv, read_tensorboard):
        metrics = read(run)[0]
        assert metrics["train/loss"] == [1, 3, 5, 7]
        assert metrics["val/acc"] == [3, 7]
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(("value", "written"), [("true", True), ("false", False)])
def test_logger_switch_keeps_the_run_folder(folder, value, written):
    train("fit", *OPTIONS, f"--trainer.logger={value}", "--trainer.max_epochs=1")
    run = Path("logs/version_0")
    assert {"checkpoints", "config.yaml", "run.yaml"} <= {path.name for path in run.iterdir()}
    assert written == bool(list(run.glob("events.*")))


@pytest.mark.parametrize("logger", ["MLFlowLogger", "CometLogger"])
def test_fast_dev_run_writes_nothing(folder, logger):
    train("fit", *OPTIONS, f"--trainer.logger={logger}", "--trainer.fast_dev_run=true")
    assert not list(Path(".").iterdir())


def test_a_run_finds_its_logger_again_after_a_fit_without_it(folder, caplog):
    caplog.set_level("INFO", "lightning.pytorch")
    loggers = ["MLFlowLogger", "CSVLogger", "MLFlowLogger"]
    for epochs, logger in enumerate(loggers, start=1):
        resume = ["--ckpt_path=last"] * (epochs > 1)
        options = [f"--trainer.logger={logger}", f"--trainer.max_epochs={epochs}"]
        train("fit", *OPTIONS, *options, *(resume or NAMED))
    run = Path("logs/version_0")
    assert read_mlflow(run)[0]["val/acc"] == [3, 11]
    said = {r.message for r in caplog.records if r.message.startswith("As configured")}
    old, new = LOGGERS + "MLFlowLogger", LOGGERS + "CSVLogger"
    said = {text.partition("trainer.logger=")[2] for text in said}
    assert said == {f"{new} (there {old})", f"{old} (there {new})"}, "and no arguments of theirs"
    metrics, settings, _ = read_csv(run)
    assert (metrics["val/acc"], settings["model.lr"]) == ([7], 0.00123)


def test_predictions_are_no_run_of_the_logger(folder):
    """W&B and Comet would make another folder, MLflow would go on with the run."""
    train("fit", *OPTIONS, "--trainer.max_epochs=1")
    trainer = train("predict", *OPTIONS, f"--trainer.logger={LOGGERS}MLFlowLogger").trainer
    assert type(trainer.logger).__name__ == "AppendingCSVLogger"
    assert not {"mlflow.db", "metrics.csv"} & {path.name for path in Path("logs").rglob("*")}


@pytest.mark.slow
def test_fits_in_one_process_are_runs_of_their_own(folder):
    for logger in ("WandbLogger", "CometLogger"):
        options = [f"--trainer.logger={logger}", *READERS[logger][0]]
        for _ in range(2):
            command("train", "fit", *OPTIONS, *options, *NAMED, "--trainer.max_epochs=1")
    train("fit", *OPTIONS, "--trainer.logger=false", "--trainer.max_epochs=1")
    ids = set()
    for number, read in enumerate((read_wandb, read_wandb, read_comet, read_comet)):
        run = Path(f"logs/version_{number}")
        assert read(run)[0]["val/acc"] == [3]
        ids |= set(yaml.safe_load((run / "run.yaml").read_text())[0]["loggers"].values())
    assert len(ids) == 4


@pytest.mark.slow
def test_two_processes_log_once(render, tmp_path):
    project = render()
    loggers = [{"class_path": LOGGERS + name, "init_args": {}} for name in ("MLFlowLogger",)]
    loggers.append({"class_path": f"{LOGGERS}CSVLogger", "init_args": {"save_dir": "logs"}})
    loggers.append({"class_path": f"{LOGGERS}WandbLogger", "init_args": {"offline": True}})
    loggers.append({"class_path": f"{LOGGERS}CometLogger", "init_args": {"online": False}})
    (tmp_path / "loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    options = [*OPTIONS, "--config=loggers.yaml", "--trainer.devices=2", "--trainer.strategy=ddp"]
    script = [sys.executable, str(project / "train.py"), "fit", *options]
    command_line = [*script, *NAMED, "--trainer.max_epochs=2"]
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "COMET", "WANDB"))
    }
    result = subprocess.run(
        command_line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "warn" not in (result.stdout + result.stderr).lower(), result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "loggers.yaml"}
    assert sorted(p.name for p in (tmp_path / "logs").iterdir()) == [
        *(".mlflow.lock", "mlflow", "mlflow.db", "version_0")
    ]
    with inside(project, tmp_path):
        run = Path("logs/version_0")
        config = flatten(yaml.safe_load((run / "config.yaml").read_text()))
        for read in (read_csv, read_mlflow, read_wandb, read_comet):
            metrics, settings, _ = read(run)
            assert metrics["val/acc"] == [3, 7]
            assert {"data", "model.lr"} <= settings.keys() & config.keys()


@pytest.mark.nightly
def test_three_fits_make_a_database_at_once(render, tmp_path):
    script = (
        "from pathlib import Path\n"
        "from engine.loggers import database_address, make_experiment\n"
        "root = Path('logs').absolute()\n"
        "address = database_address(root / 'mlflow.db')\n"
        "make_experiment(address, 'all', (root / 'mlflow').as_uri(), root)\n"
    )
    project = render(logger="mlflow")
    environment = {**os.environ, "PYTHONPATH": str(project)}
    fits = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
        for _ in range(3)
    ]
    assert [fit.wait(300) for fit in fits] == [0, 0, 0]
    database = sqlite3.connect(tmp_path / "logs" / "mlflow.db")
    assert database.execute("select count(*) from experiments where name = 'all'").fetchone() == (
        1,
    )
