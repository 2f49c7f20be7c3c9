"""What `python train.py` promises."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from models import warmup_cosine
from tests.conftest import DEFAULTS, PROJECT

MONITOR = resolve_name(DEFAULTS["model"]["class_path"]).monitor
RUN = Path("logs", "version_0")


def test_one_step(train):
    train("fit", "--trainer.fast_dev_run=true")
    assert not Path("logs").exists()
    train("fit", "--trainer.max_epochs=1")
    for subcommand in ("validate", "test", "predict"):
        train(subcommand, "--trainer.fast_dev_run=true")


def test_a_run_leaves_one_whole_folder(train, capsys):
    train("fit", "--trainer.max_epochs=1")
    commands = re.findall("python train.py (.*)", capsys.readouterr().out)
    printed = shlex.split(commands[0])
    assert printed[0] == "test"
    assert printed[-1] == str(RUN / "checkpoints" / "best.ckpt")
    train(*printed)
    names = {path.relative_to(RUN).as_posix() for path in RUN.rglob("*")}
    assert {"config.yaml", "run.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    train("fit", "--trainer.max_epochs=1", "--config", str(RUN / "config.yaml"))
    assert sorted(path.name for path in Path("logs").glob("version_*")) == [
        "version_0",
        "version_1",
    ]


def test_the_same_command_gives_the_same_weights(train):
    first, second = (train("fit", "--trainer.max_epochs=1").model.state_dict() for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_checkpoint_holds_no_code_and_rebuilds_the_system_in_a_new_process(train):
    system = train("fit", "--trainer.max_epochs=1").model
    path = (RUN / "checkpoints" / "last.ckpt").resolve()
    kind = type(system)
    script = (
        f"import torch, warnings; from {kind.__module__} import {kind.__name__} as System\n"
        "warnings.simplefilter('error', UserWarning)\n"
        f"torch.load({str(path)!r}, weights_only=True)\n"
        f"system = System.load_from_checkpoint({str(path)!r}, weights_only=True)\n"
        "print(sum(float(p.detach().double().sum()) for p in system.parameters()))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, check=False, cwd=PROJECT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    total = sum(float(p.detach().double().sum()) for p in system.parameters())
    assert float(result.stdout) == pytest.approx(total, rel=1e-6)


def test_a_continued_fit_goes_on_in_its_folder(train):
    train("fit", "--trainer.max_epochs=1")
    trainer = train("fit", "--trainer.max_epochs=3", "--ckpt_path=last").trainer
    assert trainer.current_epoch == 3
    assert [path.name for path in Path("logs").glob("version_*")] == ["version_0"]
    last = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == trainer.global_step


def test_evaluation_without_a_checkpoint_is_refused(train, capsys):
    with pytest.raises(SystemExit, match="train first"):
        train("test")
    train("fit", "--trainer.max_epochs=1")
    with pytest.raises(SystemExit, match="version_0.checkpoints.best.ckpt"):
        train("test", "--ckpt_path=elsewhere.ckpt")


def test_predict_writes_a_row_for_each_input(train):
    train("fit", "--trainer.max_epochs=1")
    train("predict", "--ckpt_path", str(RUN), "--predictions.output=found.csv")
    with open("found.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["input"] for row in rows}) > 0


def test_learns_one_batch(train):
    options = ["--trainer.overfit_batches=1", "--trainer.check_val_every_n_epoch=40"]
    options += ["--model.scheduler=null"]
    first = train("fit", "--trainer.max_epochs=1", *options)
    last = train("fit", "--trainer.max_epochs=40", *options)
    before, after = first.trainer.callback_metrics, last.trainer.callback_metrics
    if "train/loss" in after:
        assert after["train/loss"] < before["train/loss"]
    pairs = zip(first.model.parameters(), last.model.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs if new.requires_grad)


def test_swapping_a_class_resets_its_arguments(train):
    options = ["--model.optimizer=torch.optim.SGD", "--model.lr=0.01"]
    cli = train("fit", "--trainer.fast_dev_run=true", *options)
    [*_, optimizer] = cli.trainer.optimizers
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["weight_decay"] == 0


@pytest.mark.parametrize(
    "options",
    [
        ["torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size=1"],
        ["torch.optim.lr_scheduler.ReduceLROnPlateau", f"--model.scheduler_monitor={MONITOR}"],
        ["torch.optim.lr_scheduler.LinearLR", "--model.scheduler_interval=step"],
    ],
    ids=["epoch", "monitor", "step"],
)
def test_schedulers(train, options):
    scheduler, *rest = options
    cli = train("fit", "--trainer.max_epochs=2", f"--model.scheduler={scheduler}", *rest)
    steps = {"StepLR": 2, "ReduceLROnPlateau": 2, "LinearLR": 4}[scheduler.rpartition(".")[2]]
    assert {c.scheduler.last_epoch for c in cli.trainer.lr_scheduler_configs} == {steps}


def test_the_schedule_ends_at_zero(train):
    schedule = "--model.scheduler=models.warmup_cosine.WarmupCosine"
    cli = train("fit", "--trainer.max_epochs=2", schedule, "--model.scheduler.warmup_steps=1")
    [scheduler, *_] = [config.scheduler for config in cli.trainer.lr_scheduler_configs]
    assert isinstance(scheduler, warmup_cosine.WarmupCosine)
    assert scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_every_config_parses(train, capsys):
    files = sorted((PROJECT / "configs").rglob("*.yaml"))
    # Those of sweep.py are for sweep.py.
    options = [f"--config={path}" for path in files if path.parent.name != "sweep"]
    with pytest.raises(SystemExit) as stop:
        train("fit", *options, "--print_config")
    assert stop.value.code in (0, None), capsys.readouterr().err
