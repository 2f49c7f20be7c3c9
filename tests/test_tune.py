"""The finders find, draw, and hand on what they found to optimizer, scheduler and data."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from projects import ONE_CPU, QUIET, command, inside

FIT = ["fit", *ONE_CPU, *QUIET, "--trainer.max_epochs=2", "--data.batch_size=64"]


@pytest.fixture
def folder(render, tmp_path, monkeypatch):
    # As in an environment that trusts no pickled code.
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    project = render(model="mlp")
    with inside(project, tmp_path):
        (tmp_path / "configs").symlink_to(project / "configs")
        yield tmp_path


def found(capfd, key: str) -> float:
    [value] = set(re.findall(rf"--{key} ([\d.e-]+)", "".join(capfd.readouterr())))
    return float(value)


def test_a_learning_rate_is_found_and_drawn(folder, capfd):
    command("train", *FIT, "--config=configs/tune/lr.yaml")
    assert 1e-3 < found(capfd, "model.lr") < 0.5
    run = Path("logs/version_0")
    assert (run / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.rglob("*.ckpt")), "it was to stop before the fit"


def test_the_learning_rate_is_applied_also_in_the_scheduler(folder, capfd):
    options = ["--config=configs/tune/lr.yaml", "--trainer.callbacks.apply=true"]
    cli = command("train", *FIT, *options)
    lr = found(capfd, "model.lr")
    steps = 2 * len(cli.trainer.train_dataloader)
    assert cli.trainer.global_step == steps
    assert cli.model.lr == cli.model.hparams.lr == lr
    scheduler = cli.trainer.lr_scheduler_configs[0].scheduler
    assert set(scheduler.base_lrs) == {lr}
    assert scheduler.total_steps == steps
    checkpoint = torch.load("logs/version_0/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["lr"] == lr
    assert not list(Path("logs").rglob(".lr_find*"))


def test_a_batch_size_is_found(folder, capfd):
    command(
        "train", *FIT, "--config=configs/tune/batch_size.yaml", "--trainer.callbacks.max_val=64"
    )
    assert found(capfd, "data.batch_size") == 64
    assert not list(Path("logs").rglob("*.ckpt"))


def test_the_batch_size_is_applied_also_in_the_scheduler(folder, capfd):
    options = ["--config=configs/tune/batch_size.yaml", "--trainer.callbacks.apply=true"]
    cli = command("train", *FIT, *options)
    images = len(cli.datamodule.train_dataloader().dataset)
    assert found(capfd, "data.batch_size") == images == cli.datamodule.batch_size
    assert cli.trainer.global_step == 2
    assert cli.trainer.lr_scheduler_configs[0].scheduler.total_steps == 2


@pytest.mark.parametrize("name", ["lr", "batch_size"])
def test_a_fit_that_continues_searches_no_more(folder, capfd, name):
    key = {"lr": "model.lr", "batch_size": "data.batch_size"}[name]
    options = [f"--config=configs/tune/{name}.yaml", "--trainer.callbacks.apply=true"]
    whole = command("train", *FIT, *options)
    value = found(capfd, key)
    section, argument = key.split(".")
    config = yaml.safe_load(Path("logs/version_0/config.yaml").read_text())
    assert config[section]["init_args"][argument] == value
    command("train", *FIT, *options, "--trainer.max_epochs=1", "--model.scheduler.total_steps=2")
    capfd.readouterr()
    continued = command("train", *FIT, *options, "--ckpt_path=last")
    assert key not in "".join(capfd.readouterr())
    assert continued.model.lr == whole.model.lr
    assert continued.datamodule.batch_size == whole.datamodule.batch_size
    assert continued.trainer.global_step == whole.trainer.global_step


def test_callbacks_of_the_default_config_stay(folder, capfd):
    Path("mine.yaml").write_text(
        "trainer: {callbacks: [lightning.pytorch.callbacks.DeviceStatsMonitor]}"
    )
    options = ["--config=mine.yaml", "--config=configs/tune/lr.yaml"]
    cli = command("train", *FIT, *options, "--trainer.fast_dev_run=true")
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {"DeviceStatsMonitor", "FindLearningRate", "PatientStopping"} <= names


def test_the_largest_batch_size_is_tried(folder, capfd, monkeypatch):
    from models.classifier import Classifier

    original, sizes = Classifier.training_step, set()

    def training_step(self, batch, batch_idx):
        sizes.add(len(batch[0]))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", training_step)
    command(
        "train", *FIT, "--config=configs/tune/batch_size.yaml", "--trainer.callbacks.max_val=64"
    )
    assert found(capfd, "data.batch_size") == 64 == max(sizes)


@pytest.mark.slow
def test_a_gan_has_a_batch_size_but_not_one_learning_rate(render, tmp_path, capfd):
    project = render(model="gan")
    config = render(model="mlp") / "configs" / "tune" / "lr.yaml"  # a gan has none
    with inside(project, tmp_path):
        with pytest.raises(SystemExit, match="GAN has 2; search model.lr with sweep.py"):
            command("train", *FIT, f"--config={config}")
        size = f"--config={project}/configs/tune/batch_size.yaml"
        command("train", *FIT, size, "--trainer.callbacks.max_val=32")
        assert found(capfd, "data.batch_size") == 32
