"""What the card trains, and what is asserted of it."""

import csv
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from projects import command, inside, small_data

# Epochs, and between what limits a metric of the validation has to come.
GOALS = {
    "cnn": (4, "val/acc", 0.8, 1.0),
    "mlp": (8, "val/acc", 0.8, 1.0),
    "resnet": (4, "val/acc", 0.8, 1.0),
    "vit": (16, "val/acc", 0.6, 1.0),
    "autoencoder": (4, "val/loss", 0.0, 0.3),
    "gan": (4, "val/frechet", 0.0, 60.0),
    "gpt": (2, "val/bits_per_byte", 0.0, 4.5),
}
# On what, if not on the digits, and of how much of it: the whole takes minutes.
ON = {
    "gpt": (
        "python_source",
        ("--trainer.limit_train_batches=100", "--trainer.limit_val_batches=8"),
    ),
}
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
# How far probabilities of the card may be from those of the exported file, in float32 on a CPU.
TOLERANCES = {"32-true": 0.01, "64-true": 0.01}


class Checks:
    """Sends what holds and what does not, and goes on after a failure."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.end = float(os.environ.get("GPU_END", "inf"))  # after which nothing new begins

    def late(self, name: str) -> bool:
        """Whether there is no time left for checks of this name; then they are said to be left."""
        if late := time.time() > self.end:
            self.connection.send((name, None))
        return late

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit):
            self.connection.send((name, traceback.format_exc()))
        else:
            self.connection.send((name, ""))


def train(connection: Connection, project: Path, folder: Path, model: str, precisions: list[str]):
    """Fit, resume, test, predict and export in each precision; an exact resume in the first."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # else its sums differ from run to run
    checks = Checks(connection)
    for precision in precisions:
        if checks.late(f"{model} {precision}"):
            continue
        here = folder / precision
        here.mkdir(parents=True)
        options = (*options_of(model), f"--trainer.precision={precision}")
        with inside(project, here):
            with checks.check(f"{model} {precision}: fit"):
                learns(model, options)
            with checks.check(f"{model} {precision}: resume, test, predict"):
                goes_on(model, options)
            for kind in export_formats():
                with checks.check(f"{model} {precision}: export {kind}"):
                    exports(model, kind, TOLERANCES.get(precision, 0.05))
    if checks.late(f"{model} {precisions[0]}: exact resume"):
        return
    here = folder / "exact"
    here.mkdir()
    with inside(project, here), checks.check(f"{model} {precisions[0]}: exact resume"):
        resumes_exactly((*options_of(model), f"--trainer.precision={precisions[0]}"))


def options_of(model: str) -> tuple[str, ...]:
    return (*QUIET, *ON.get(model, ("", ()))[1])


def learns(model: str, options: tuple[str, ...]) -> Any:
    epochs, metric, low, high = GOALS[model]
    cli = command("train", "fit", *options, f"--trainer.max_epochs={epochs}")
    reached = cli.trainer.callback_metrics[metric].item()
    assert low <= reached <= high, f"{metric} is {reached}"
    return cli


def goes_on(model: str, options: tuple[str, ...]) -> None:
    epochs = GOALS[model][0] + 1
    cli = command("train", "fit", *options, f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
    assert cli.trainer.current_epoch == epochs
    tested = command("train", "test", *options, "--ckpt_path=best").trainer.callback_metrics
    assert all(value.isfinite() for value in tested.values())
    data = command("train", "predict", *options, "--ckpt_path=best").datamodule
    rows = read_table(Path("logs/version_0/predictions.csv"))
    assert len(rows) == len(data.predict_dataloader().dataset)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def export_formats() -> list[str]:
    from importlib.util import find_spec

    onnx = all(find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
    return ["pt2", "onnx"] if onnx else ["pt2"]


def exports(model: str, kind: str, tolerance: float) -> None:
    """The file gives what `predict` gave on the card, as far as its precision goes."""
    command("export", "best", f"--format={kind}")
    if kind != "pt2" or model in ON:
        return
    import torch

    from data.digits import Digits

    rows = read_table(Path("logs/version_0/predictions.csv"))
    names = [name for name in rows[0] if name.startswith("probability_")]
    if not names:
        return
    data = Digits()
    data.prepare_data()
    data.setup("predict")
    images = torch.stack([images for images, *_ in data.splits["predict"]])
    module = torch.export.load("logs/version_0/model.pt2").module()
    found = module(images)
    [found] = [value for name, value in found.items() if name.startswith("probabilit")]
    predicted = torch.tensor([[float(row[name]) for name in names] for row in rows])
    difference = (found - predicted).abs().max().item()
    assert difference <= tolerance, f"probabilities differ by {difference:.1e}"


def resumes_exactly(options: tuple[str, ...]) -> None:
    """Two epochs in one fit or in two give the same weights to the bit."""
    import torch

    # A schedule of its own length, which the length of the first part does not change.
    options = (*options, "--trainer.deterministic=warn", "--model.scheduler.total_steps=60")
    options = (*options, "--trainer.limit_train_batches=12", "--trainer.limit_val_batches=1")
    whole = command("train", "fit", *options, "--trainer.max_epochs=2").model.state_dict()
    command("train", "fit", *options, "--trainer.max_epochs=1")
    parts = command("train", "fit", *options, "--trainer.max_epochs=2", "--ckpt_path=last")
    parts = parts.model.state_dict()
    unlike = [name for name in whole if not torch.equal(whole[name].cpu(), parts[name].cpu())]
    worst = max(((whole[k].cpu() - parts[k].cpu()).abs().max().item() for k in unlike), default=0)
    assert not unlike, f"{len(unlike)} of {len(whole)} weights differ, by up to {worst:.1e}"


def compiles(connection: Connection, project: Path, folder: Path, model: str) -> None:
    """`model.compile` compiles in the first epoch, and nothing after it."""
    checks = Checks(connection)
    if checks.late(f"{model} bf16-mixed: compile"):
        return
    folder.mkdir(parents=True)
    with inside(project, folder), checks.check(f"{model} bf16-mixed: compile"):
        import torch

        options = (
            *options_of(model),
            "--model.compile=true",
            "--trainer.callbacks+=steps.CompilesOnce",
        )
        learns(model, options)
        command("train", "test", *options[:-1], "--ckpt_path=best")
        torch.compiler.set_stance("default")


def shards(connection: Connection, projects: dict[str, Path], folder: Path, todo: list) -> None:
    """Trains each (model, precision) with the strategy of its project, in a group of one process."""
    checks = Checks(connection)
    for model, precision in todo:
        if checks.late(f"{model} {precision}: {folder.name}"):
            continue
        here = folder / f"{model}-{precision}"
        here.mkdir(parents=True)
        options = (*options_of(model), f"--trainer.precision={precision}")
        if precision == "16-true":  # as the question of that name writes it
            options += ("--model.optimizer.eps=1e-4",)
        with inside(projects[model], here), checks.check(f"{model} {precision}: {folder.name}"):
            if precision in ("32-true", "bf16-mixed", "16-mixed"):
                learns(model, options)
            else:
                command("train", "fit", *options, "--trainer.max_epochs=1")
            command("train", "test", *options, "--ckpt_path=best")


def goes_through(connection: Connection, project: Path, folder: Path, data: str, model: str):
    """A fit whose steps do not wait for the card, a test, predictions and the exported file."""
    checks = Checks(connection)
    if checks.late(f"{data} {model}"):
        return
    folder.mkdir(parents=True)
    with inside(project, folder):
        options = [*QUIET, *small_data(data, folder / "data"), "--data.batch_size=2"]
        options += ["--trainer.limit_val_batches=4", "--trainer.limit_test_batches=4"]
        with checks.check(f"{data} {model}: no step waits for the card"):
            epoch = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=12")
            command("train", "fit", *options, *epoch, "--trainer.callbacks+=steps.Waits")
        with checks.check(f"{data} {model}: test, predict, export"):
            for name in ("test", "predict"):
                command("train", name, *options, "--ckpt_path=best")
            assert read_table(Path("logs/version_0/predictions.csv"))
            for kind in export_formats():
                command("export", "best", f"--format={kind}")


def profiles(connection: Connection, project: Path, folder: Path, options: list[str]) -> None:
    """Looks into the steps of a fit; sends what `steps.Steps` has found."""
    folder.mkdir(parents=True)
    with inside(project, folder):
        import steps

        def turn() -> None:
            connection.send("ready")
            connection.recv()

        steps.Steps.turn = staticmethod(turn)
        command(
            *("train", "fit", "--trainer.max_epochs=1", "--trainer.limit_train_batches=60"),
            *("--trainer.limit_val_batches=0", "--trainer.callbacks+=steps.Steps", *options),
        )
        connection.send(steps.FOUND)
