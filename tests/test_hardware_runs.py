"""Two processes really train, on two CPU cores; what they leave behind is the same in one process."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from projects import ONE_CPU, QUIET, command, evaluate, inside

GOALS = {  # a metric of the validation after so many epochs, and its limits
    ("digits", "cnn"): (4, "val/acc", 0.8, 1.0),
    ("digits", "vit"): (16, "val/acc", 0.6, 1.0),
    ("digits", "autoencoder"): (4, "val/loss", 0.0, 0.3),
    ("digits", "gan"): (4, "val/frechet", 0.0, 60.0),
    ("breast_cancer", "mlp"): (8, "val/acc", 0.8, 1.0),
    ("diabetes", "tabular_transformer"): (8, "val/rmse", 30.0, 90.0),
    ("demand", "tcn"): (1, "val/mase", 0.2, 1.0),
    ("earth", "unet"): (1, "val/mean_iou", 0.4, 1.0),
}
# What an evaluation, and a fit that goes on, do in the processes of one launch: a launch costs
# seconds. Writes the metrics of `test`.
LATER = """
import atexit, json, sys
from pathlib import Path

@atexit.register  # before those that train.py registers: it runs after them
def show_threads() -> None:
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    if "pt_gloo_runloop\\n" in names:
        print("Threads of gloo are left.")

sys.path[:0] = [str(Path.cwd()), {tests!r}]
import train  # as its own commands do: it filters the noise
from projects import command
if __name__ == "__main__":
    options = sys.argv[1:]
    test = command("train", "test", "--ckpt_path", {checkpoint!r}, *options)
    metrics = {{k: v.item() for k, v in test.trainer.callback_metrics.items()}}
    command("train", "predict", "--ckpt_path", {checkpoint!r}, *options)
    fit = command("train", "fit", "--ckpt_path", "last", "--trainer.max_epochs={epochs}", *options)
    if test.trainer.is_global_zero:
        Path("metrics.json").write_text(json.dumps(metrics))
"""


def run(project: Path, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, *words], cwd=project, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    warnings = [line for line in result.stderr.splitlines() if "arning" in line]
    assert [line for line in warnings if "collection.cpp" not in line] == []  # torch's profiler
    return result.stdout


def read_table(path: Path) -> tuple[list[str], list[str], torch.Tensor]:
    """Column names, names of the inputs and the numbers (rows, columns)."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    texts = ("input", "prediction_name", "diagnosis")
    numbers = [i for i, name in enumerate(header) if name not in texts]
    values = torch.tensor([[float(row[i]) for i in numbers] for row in rows])
    return header, [row[0] for row in rows], values


def epochs_done(path: Path) -> int:
    from engine.runs import read_checkpoint

    return read_checkpoint(path)["loops"]["fit_loop"]["epoch_progress"]["total"]["processed"]


def cells() -> Iterator[Any]:
    for strategy in ("ddp", "ddp_spawn", "fsdp2"):
        for data, model in GOALS:
            # By day a classifier with each, and two optimizers where weights are sharded.
            by_day = model == "cnn" or (strategy, model) == ("fsdp2", "gan")
            marks = [] if by_day and data == "digits" else [pytest.mark.nightly]
            yield pytest.param(strategy, data, model, marks=marks, id=f"{strategy}-{data}-{model}")


@pytest.mark.parametrize(("strategy", "data", "model"), [*cells()])
def test_two_processes(render, strategy, data, model):
    hardware = {"strategy": strategy, "accelerator": "cpu", "devices": "2"}
    project = render(copy=True, data=data, model=model, logger="csv", **hardware)
    epochs, metric, low, high = GOALS[data, model]
    run(project, "train.py", "fit", f"--trainer.max_epochs={epochs}", *QUIET)
    assert [path.name for path in (project / "logs").iterdir()] == ["version_0"]
    run_folder = project / "logs" / "version_0"
    checkpoints = run_folder / "checkpoints"
    assert (checkpoints / "best.ckpt").is_dir() == (strategy == "fsdp2")
    checkpoint = checkpoints / "first.ckpt"  # one that the continued fit leaves alone
    copy = shutil.copytree if strategy == "fsdp2" else shutil.copy
    copy(checkpoints / "best.ckpt", checkpoint)

    tests = str(Path(__file__).parent)
    script = LATER.format(tests=tests, checkpoint=str(checkpoint), epochs=epochs + 1)
    (project / "later.py").write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    output = run(project, *launcher * (strategy != "ddp_spawn"), "later.py", *QUIET)
    # Any of them may abort Python's end. Caches of sharded tensors keep those of their group.
    assert ("Threads of gloo are left." in output) == (strategy == "fsdp2")
    assert [path.name for path in (project / "logs").iterdir()] == ["version_0"]
    metrics = json.loads((project / "metrics.json").read_text())
    header, names, values = read_table(run_folder / "predictions.csv")
    grids = {path.name: Image.open(path).size for path in run_folder.glob("predictions_*.png")}

    with inside(project):
        assert low <= evaluate("validate", checkpoint)[metric] <= high
        # No image counts twice, although 2 processes do not share all images evenly.
        assert evaluate("test", checkpoint) == pytest.approx(metrics, rel=1e-4)
        evaluate("predict", checkpoint)
        one = read_table(run_folder / "predictions.csv")
        assert (header, names) == one[:2]
        if data == "digits":  # rows of a table have their numbers there, and series times
            assert names == [str(i) for i in range(len(names))]
        torch.testing.assert_close(values, one[2], rtol=1e-3, atol=1e-4)
        assert {p.name: Image.open(p).size for p in run_folder.glob("predictions_*.png")} == grids
        assert epochs_done(checkpoints / "last.ckpt") == epochs + 1
        if strategy == "fsdp2":
            consolidates(checkpoint, metrics, epochs + 1)


def consolidates(checkpoint: Path, metrics: dict[str, float], epochs: int) -> None:
    command("consolidate", str(checkpoint), "plain.ckpt")
    contents = torch.load("plain.ckpt", weights_only=True)
    assert {"state_dict", "optimizer_states", "hyper_parameters"} <= set(contents)
    assert evaluate("test", Path("plain.ckpt")) == pytest.approx(metrics, rel=1e-4)
    for source in (str(checkpoint), "plain.ckpt"):
        command("export", source, "--format=pt2", "--output=exported.pt2")
        os.remove("exported.pt2")
    # The optimizers go on, too.
    fit = command(
        *("train", "fit", "--ckpt_path=plain.ckpt", *ONE_CPU, *QUIET),
        f"--trainer.max_epochs={epochs}",
    )
    assert fit.trainer.current_epoch == epochs


def test_finds_the_folders_that_deepspeed_writes(render, tmp_path):
    with inside(render(), tmp_path):
        from engine.checkpoint_io import AtomicCheckpointIO
        from engine.errors import UserError
        from engine.runs import find_checkpoint, read_checkpoint

        for stage, name in ((2, "mp_rank_00"), (3, "zero_pp_rank_0_mp_rank_00")):
            best = tmp_path / f"logs/version_{stage}/checkpoints/best.ckpt"
            (best / "checkpoint").mkdir(parents=True)
            (best / "latest").write_text("checkpoint")
            with pytest.raises(UserError):
                find_checkpoint(str(best), "last", Path("logs"))
            # The engine's state, and beside it what Lightning has given it.
            state = {"module": {"weight": torch.ones(2)}, "hyper_parameters": {"lr": stage}}
            state["pytorch-lightning_version"] = "2.6.6"
            torch.save(state, best / "checkpoint" / f"{name}_model_states.pt")
            for word in ("best", str(best), str(best.parents[1])):
                found = find_checkpoint(word, "best", tmp_path / "logs")
                assert found == best
                assert read_checkpoint(found)["hyper_parameters"] == {"lr": stage}
            with pytest.raises(UserError, match="DeepSpeed; convert_zero_checkpoint"):
                AtomicCheckpointIO().load_checkpoint(best)


@pytest.mark.parametrize("exchange", [True, False])  # which some file systems cannot
def test_a_killed_save_leaves_the_sharded_folder_whole(render, tmp_path, monkeypatch, exchange):
    with inside(render(strategy="fsdp2", accelerator="cpu", devices="2")):
        from engine import fsdp2

        if not exchange:
            monkeypatch.setattr(fsdp2.ctypes, "CDLL", lambda _: None)

        def save(self, checkpoint, path, storage_options):
            path.mkdir()
            (path / "__0_0.distcp").write_text(checkpoint["weights"])
            if checkpoint["weights"] == "half of":
                raise KeyboardInterrupt
            (path / "meta.pt").touch()

        monkeypatch.setattr(fsdp2.ModelParallelStrategy, "save_checkpoint", save)
        path = tmp_path / "last.ckpt"
        path.touch()  # of a fit in one process
        strategy = fsdp2.FSDP2()
        strategy.save_checkpoint({"weights": "first"}, path)
        with pytest.raises(KeyboardInterrupt):
            strategy.save_checkpoint({"weights": "half of"}, path)
        assert (path / "__0_0.distcp").read_text() == "first"
        assert (path / "meta.pt").exists()
        strategy.save_checkpoint({"weights": "second"}, path)
        assert (path / "__0_0.distcp").read_text() == "second"
        assert list(tmp_path.iterdir()) == [path]


# Fits with one config after another: in the processes of one launch, since a launch costs seconds.
EVERY = """
import sys
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), {tests!r}]
import train  # as its own commands do: it filters the noise
from projects import command
if __name__ == "__main__":
    for config in sys.argv[1:]:
        print(config, flush=True)
        command("train", "fit", f"--config={{config}}", "--trainer.max_epochs=2", *{options!r})
"""


@pytest.mark.nightly
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "fsdp2"])
def test_every_config_and_search_in_two_processes(render, strategy):
    project = render(
        copy=True, model="mlp", strategy=strategy, accelerator="cpu", devices="2", logger="csv"
    )
    configs = [path.relative_to(project) for path in project.glob("configs/*/*.yaml")]
    kinds = ("callbacks", "debug", "tune")
    configs = [path for path in configs if path.parent.name in kinds]
    assert len(configs) > 12
    # One that names a strategy of its own starts processes of its own: it gets a launch for itself.
    alone = [path for path in configs if "strategy:" in (project / path).read_text()]
    configs = sorted(str(path) for path in configs if path not in alone)
    script = EVERY.format(tests=str(Path(__file__).parent), options=QUIET)
    (project / "every.py").write_text(script)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    launcher *= strategy != "ddp_spawn"
    output = run(project, *launcher, "every.py", *configs)
    for path in alone:
        run(project, *launcher, "every.py", str(path))
    found = {line.split()[1] for line in output.splitlines() if line.startswith("Found: --")}
    assert len(found) == sum("tune" in config for config in configs)
    one_epoch = "trainer.max_epochs=1"
    assert "mean" in run(project, "crossval.py", "--folds=2", f"--{one_epoch}")
    assert "Best: " in run(project, "sweep.py", "--trials=1", f"--settings.{one_epoch}")


FAULT = """
import os, signal
from lightning.pytorch import Callback
from engine.errors import UserError

class Fault(Callback):
    def on_train_batch_end(self, trainer, *_):
        if (trainer.global_step, trainer.global_rank) == (3, 1):
            {what}
"""


@pytest.mark.parametrize(
    ("strategy", "what", "code", "stdout", "stderr"),
    [
        ("ddp", "os.killpg(0, signal.SIGINT)", 130, "--ckpt_path {last}\n", "Stopping"),
        ("ddp_spawn", "os.killpg(0, signal.SIGINT)", 130, "--ckpt_path {last}\n", "Stopping"),
        ("ddp_spawn", "raise KeyError('bug')", 1, "--ckpt_path {last}\n", "KeyError: 'bug'\n"),
        (
            "ddp_spawn",
            "raise UserError('No.')",
            1,
            "--ckpt_path {last}\n",
            "\nerror: No. (fault.py:9)\n",
        ),
    ],
)
def test_two_processes_that_stop(render, strategy, what, code, stdout, stderr):
    project = render(
        copy=True, model="mlp", strategy=strategy, accelerator="cpu", devices="2", logger="csv"
    )
    (project / "fault.py").write_text(FAULT.format(what=what))
    options = ["--trainer.callbacks+=fault.Fault", "--trainer.log_every_n_steps=1"]
    options += ["--last_checkpoint.every_n_train_steps=2", *QUIET]
    result = subprocess.run(
        [sys.executable, "train.py", "fit", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,  # the signal is for this fit alone
    )
    assert result.returncode == code
    last = os.path.join("logs", "version_0", "checkpoints", "last.ckpt")
    assert result.stdout.endswith(stdout.format(last=last))
    assert stderr in result.stderr
    assert ("Traceback" in result.stderr) == ("bug" in what)
    # One that stops has saved after its step; one that fails has the save of the step before.
    saved = torch.load(project / last, weights_only=True)["global_step"]
    assert saved == (3 if code == 130 else 2)
