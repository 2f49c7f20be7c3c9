"""What goes wrong in LightningCLI as it comes, and does not here."""

import csv
import io
import math
import os
import re
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fixtures import write_images
from lightning.pytorch import Trainer
from projects import SMALL, command, inside, small_data

FIT = ["fit", *SMALL, "--trainer.max_epochs=1"]


@pytest.fixture
def project(render, tmp_path):
    with inside(render(), tmp_path):
        yield tmp_path


def error(capfd, *options: str) -> str:
    with pytest.raises(SystemExit) as stop:
        command("train", *FIT, *options)
    assert stop.value.code
    assert not [*Path("logs").glob("*")], "a fit that cannot start leaves no run"
    return stop.value.code if isinstance(stop.value.code, str) else capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--early_stoping.patience=3", "early_stopping.patience"),
        ("--trainer.max_epoches=3", "trainer.max_epochs"),
        ("--trainer.max_epoch=3", "trainer.max_epochs"),
        ("--model.netwrok=models.networks.cnn.CNN", "model.network"),
        ("--model.network.widht=3", "model.network.width"),
        ("--data.batchsize=4", "data.batch_size"),
        ("--pictures.every_n_epoch=3", "pictures.every_n_epochs"),
        ("--last_checkpoint.filenam=x", "last_checkpoint.filename"),
    ],
)
@pytest.mark.parametrize("where", ["command line", "file"])
def test_an_unknown_key_is_named_with_the_nearest(project, capfd, where, option, nearest):
    if where == "file":
        key, _, value = option.removeprefix("--").partition("=")
        for word in reversed(key.split(".")):
            value = {word: value}
        for name in ("model", "data"):
            if name in value:
                value[name] = {"init_args": value[name]}
        if "network" in value.get("model", {}).get("init_args", {}):
            network = value["model"]["init_args"]
            network["network"] = {"init_args": network["network"]}
        Path("mine.yaml").write_text(yaml.safe_dump(value))
        option = "--config=mine.yaml"
    message = error(capfd, option)
    assert f"Did you mean --{nearest}?" in message
    assert "usage:" not in message


def test_an_unknown_argument_of_a_swapped_class_is_named_with_its_nearest(project, capfd):
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"momentun": 0.9}}
    settings = {"model": {"init_args": {"optimizer": optimizer}}}
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    assert "Did you mean --model.optimizer.momentum?" in error(capfd, "--config=mine.yaml")
    timer = ["--trainer.callbacks+=Timer", "--trainer.callbacks.durration=1"]
    assert "Did you mean --trainer.callbacks.duration?" in error(capfd, *timer)


def test_an_option_without_its_group_is_named_with_it(project, capfd):
    assert "Did you mean --trainer.max_epochs?" in error(capfd, "--max_epochs=3")
    assert "Did you mean" not in error(capfd, "extra")
    # As other tools write them: rather an option that people want often than one that is like it.
    words = {"--epochs=3": "trainer.max_epochs", "trainer.max_epochs=3": "trainer.max_epochs"}
    words |= {"--batch-size=3": "data.batch_size", "--seed=3": "seed_everything"}
    words |= {"--learning-rate=1": "model.lr", "--resume=x": "ckpt_path"}
    for word, meant in words.items():
        assert f"Did you mean --{meant}?" in error(capfd, word)


def test_a_word_that_is_no_command_is_told_which_trains(project, capfd):
    with pytest.raises(SystemExit):
        command("train", "train")
    assert "invalid choice: 'train' (choose from 'fit', which trains," in capfd.readouterr().err
    with pytest.raises(SystemExit):
        command("train", "trainer.max_epochs=3")  # as with Hydra
    assert "Did you mean --trainer.max_epochs?" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        command("train", "--trainer.max_epochs=3", "test")
    assert "arguments: test: it comes first, train.py test\n" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        command("train", "fit", "–-max_epochs", "3")  # a dash of a word processor's
    assert "Did you mean --trainer.max_epochs?" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.lr=fast", "model.lr: expected float. Got value: fast"),
        ("--model.network.width=x", "model.network.width: expected int. Got value: x"),
        (
            "--model.optimizer.betas=[0.9]",
            "model.optimizer.betas: expected tuple with 2 elements. Got value: [0.9]",
        ),
        (
            "--model.scheduler.warmup_steps=1.5",
            "model.scheduler.warmup_steps: expected int. Got value: 1.5",
        ),
        (
            "--model.network.widht=8",
            "model.network: Option 'widht' is not accepted by models.networks.cnn.CNN. "
            "Did you mean --model.network.width?",
        ),
        (
            "--model.network.stride=8",
            "model.network: Option 'stride' is not accepted by models.networks.cnn.CNN. "
            "Did you mean depth, dropout, image_shape, num_classes, width?",
        ),
        ("--trainer.max_epochs=x", "trainer.max_epochs: expected int. Given value: x"),
        (
            "--data.on_device=maybe",
            "data.on_device: expected bool, or expected Literal['auto']. Given value: maybe",
        ),
        (
            "--model.network=models.networks.vit.ViT",
            "model.network: module 'models.networks' has no attribute 'vit'",
        ),
        (
            "--model.optimizer=torch.optim.SDG",
            "model.optimizer: module 'torch.optim' has no attribute 'SDG'. "
            "Got value: torch.optim.SDG",
        ),
        (
            "--model.scheduler=torch.optim.lr_scheduler.StepLR",
            "model.scheduler: the following arguments are required: step_size",
        ),
        (
            "--trainer.callbacks+=callbacks.none.None",
            "trainer.callbacks: module 'callbacks' has no attribute 'none'. "
            "Given value: callbacks.none.None",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_key_in_one_line(
    project, capfd, option, message
):
    assert error(capfd, option).strip().splitlines()[-1] == f"error: {message}"


def test_an_error_in_a_class_is_shown_where_it_is(project, monkeypatch, capfd):
    Path("mine.py").write_text(
        "from data.digits import Digits\n"
        "class Mine(Digits):\n"
        "    def __init__(self, n: int = 1) -> None:\n"
        "        super().__init__()\n"
        "        [][n]\n"
    )
    monkeypatch.syspath_prepend(project)
    with pytest.raises(IndexError, match="list index out of range") as raised:
        command("train", *FIT, "--data=mine.Mine")
    assert raised.traceback[-1].path == project / "mine.py"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import not_installed", 1),
        ("class Mine:\n    x = undefined", 2),
        ("import torch\n\ntorch.nn.Linaer", 3),
    ],
)
@pytest.mark.parametrize("option", ["--model", "--model.network", "--trainer.callbacks+"])
def test_a_file_that_cannot_be_imported_is_named(project, monkeypatch, capfd, option, text, line):
    Path("broken.py").write_text(text)
    Path("imports.py").write_text("import broken")  # the file that is asked for is another
    monkeypatch.syspath_prepend(project)
    message = error(capfd, f"{option}=imports.Mine")
    assert f" ({project / 'broken.py'}:{line})" in message
    assert "Traceback" not in message


REFUSES = """
from engine.errors import UserError
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

class Mine(Callback):
    def on_train_start(self, trainer, system):
        {}
"""


@pytest.mark.parametrize(
    "line",
    [
        "raise UserError('No.')",
        "raise MisconfigurationException('No.')",
        "raise UserError('No.') from KeyError(1)",
        "system.log('x', 1.0, on_step=True)",  # not there, says Lightning
    ],
)
def test_a_sentence_says_which_file_of_the_users_it_comes_from(project, monkeypatch, line):
    Path("refuses.py").write_text(REFUSES.format(line))
    monkeypatch.syspath_prepend(project)
    monkeypatch.delitem(sys.modules, "refuses", raising=False)
    with pytest.raises(SystemExit) as stop:
        command("train", *FIT, "--trainer.callbacks+=refuses.Mine")
    assert str(stop.value).startswith("error: ")
    assert str(stop.value).endswith(f" ({project / 'refuses.py'}:8)")


def test_a_fit_starts_twice_and_from_its_own_config(project):
    command("train", *FIT)
    command("train", *FIT)
    command("train", *FIT, "--config=logs/version_0/config.yaml")
    assert sorted(path.name for path in Path("logs").iterdir()) == [
        "version_0",
        "version_1",
        "version_2",
    ]
    first, third = (Path(f"logs/version_{n}/config.yaml").read_text() for n in (0, 2))
    assert first == third


@pytest.mark.parametrize("option", ["--pictures.count=0", "--pictures.every_n_epochs=0"])
def test_pictures_can_be_turned_off(project, monkeypatch, option):
    monkeypatch.setattr("callbacks.pictures.log_picture", lambda *_: pytest.fail("a picture"))
    command("train", *FIT, option)


def test_a_checkpoint_before_a_config_counts(project):
    command("train", *FIT)
    command("train", *FIT)
    given = ["--ckpt_path=logs/version_0", "--config=logs/version_0/config.yaml"]
    cli = command("train", "fit", *given, *SMALL, "--trainer.max_epochs=2")
    assert cli.trainer.current_epoch == 2
    assert Path(cli.trainer.default_root_dir).name == "version_0"
    cli = command("train", "test", *given, *SMALL)
    assert Path(cli.trainer.default_root_dir).name == "version_0"
    command("train", "fit", given[1], *SMALL)  # a new run, also from the config of a continued one
    assert Path("logs/version_2").is_dir()


def test_callbacks_of_a_second_config_leave_the_others(project):
    Path("mine.yaml").write_text(
        "trainer: {callbacks: [lightning.pytorch.callbacks.RichModelSummary]}"
    )
    cli = command("train", *FIT, "--config=mine.yaml")
    names = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {"RichModelSummary", "PatientStopping", "LearningRateMonitor", "Pictures"} <= names
    assert Path("logs/version_0/checkpoints/last.ckpt").is_file()


def test_the_architecture_comes_from_the_checkpoint(project):
    command("train", *FIT, "--model.network.width=8")
    cli = command("train", "test", *SMALL, "--ckpt_path=best")
    assert cli.model.hparams.network["init_args"]["width"] == 8


def test_a_folder_is_predicted_as_the_fit_read_its_images(render, tmp_path, caplog):
    with inside(render(data="image_folder"), tmp_path):
        write_images(tmp_path / "mine", classes=("cat", "dog"), count=10)
        command("train", *FIT, "--data.data_dir=mine", "--data.image_size=24")
        # The default folder is that of another fit.
        write_images(tmp_path / "datasets" / "images", classes=("x", "y", "z"))
        photos = write_images(tmp_path / "new", classes=("",), count=3)
        for given in ([], ["--data.data_dir=nowhere"]):
            cli = command("train", "predict", *SMALL, f"--data.predict_dir={photos}", *given)
            assert "data.predict_dir" not in caplog.text  # what is asked for is no difference
            assert cli.datamodule.image_shape == (3, 24, 24)
            with open("logs/version_0/predictions.csv", newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            assert [row["input"] for row in rows] == sorted(map(str, photos.glob("*")))
            assert {row["prediction_name"] for row in rows} <= {"cat", "dog"}
        # What is tested are the images of the fit, unless others are named; those do not fit here.
        cli = command("train", "test", *SMALL, f"--data.predict_dir={photos}")
        assert cli.datamodule.image_shape == (3, 24, 24)
        with pytest.raises(SystemExit, match="but this ImageFolder has image_shape"):
            command("train", "test", *SMALL, "--data.image_size=32")


def test_a_swap_forgets_the_arguments_of_the_old_class(project):
    options = ["--model.optimizer=torch.optim.SGD", "--model.lr=0.1"]
    cli = command("train", *FIT, *options)
    assert cli.trainer.optimizers[0].defaults["weight_decay"] == 0


def test_a_config_with_a_device_starts_a_fit_again(project):
    swa = ["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.01"]
    command("train", *FIT, *swa)
    cli = command("train", "fit", "--config=logs/version_0/config.yaml")
    assert cli.config.fit.trainer.callbacks[-1].init_args.device == torch.device("cpu")


def test_a_fit_is_tested_when_asked_for(project, capfd):
    cli = command("train", *FIT, "--test_after_fit=true")
    assert "test/acc" in cli.trainer.callback_metrics
    best = torch.load("logs/version_0/checkpoints/best.ckpt", weights_only=True)
    assert torch.equal(
        best["state_dict"]["network.head.weight"], cli.model.state_dict()["network.head.weight"]
    )
    cli = command("train", *FIT)
    assert "test/acc" not in cli.trainer.callback_metrics


def test_a_strategy_may_be_given_by_its_class(project):
    kind = "lightning.pytorch.strategies.SingleDeviceStrategy"
    settings = [f"--trainer.strategy={kind}", "--trainer.strategy.device=cpu"]
    for options in (settings[:1], settings):
        trainer = command("train", *FIT, *options, "--trainer.fast_dev_run=true").trainer
        assert type(trainer.strategy).__name__ == "SingleDeviceStrategy"


def test_what_lightning_refuses_is_one_sentence(render, tmp_path):
    with inside(render(model="gan"), tmp_path):
        with pytest.raises(SystemExit, match="^error: .*Remove `Trainer.gradient_clip_val=1"):
            command("train", *FIT, "--trainer.gradient_clip_val=1")


OWN = """
from torch import nn
from models.classifier import Classifier

class Network(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        channels, height, width = image_shape
        linear = nn.Linear(channels * height * width, num_classes)
        self.layers = nn.Sequential(nn.Flatten(), linear)

    def forward(self, images):
        return self.layers(images)

class System(Classifier):
    def __init__(self, network: nn.Module, lr: float = 0.1):
        super().__init__(network, lr=lr)
        self.save_hyperparameters(ignore=["network"])
"""


def test_a_network_and_a_system_of_ones_own_are_fitted_and_tested(project, monkeypatch):
    Path("own.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "own", raising=False)  # of another test
    monkeypatch.syspath_prepend(project)
    command("train", *FIT, "--model.network=own.Network")
    cli = command("train", "test", *SMALL)
    assert type(cli.model.network).__name__ == "Network"
    command("train", *FIT, "--model=own.System", "--model.network=own.Network")
    run = Path("logs/version_1")
    torch_file = str(run / "checkpoints/best.ckpt")
    cli = command("train", "test", f"--config={run}/config.yaml", "--ckpt_path", torch_file)
    assert type(cli.model.network).__name__ == "Network"


OWN_DATA = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class Plain(LightningDataModule):
    def train_dataloader(self):
        images, labels = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
        return DataLoader(TensorDataset(images, labels), batch_size=16)

    val_dataloader = test_dataloader = train_dataloader

class Told(Plain):
    image_shape, num_classes = [1, 8, 8], 10

class Sevens(torch.nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(num_classes)[7] * 100)

    def forward(self, images):
        return self.weight.expand(len(images), -1)

def optimizer(parameters, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr)
"""


def test_what_the_network_must_be_told_comes_from_the_data(project, monkeypatch, capfd):
    Path("own_data.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(project)
    given = ("--model.network.image_shape=[1,8,8]", "--model.network.num_classes=10")
    message = error(capfd, "--data=own_data.Plain")
    assert (
        "models.networks.cnn.CNN takes image_shape: give it, or let facts of own_data.Plain"
        in message
    )
    message = error(capfd, "--model.network.num_classes=12")
    assert "num_classes of models.networks.cnn.CNN is 12" in message
    assert "data.digits.Digits has 10" in message
    command("train", *FIT, "--data=own_data.Plain", *given)
    assert command("train", "test", "--data=own_data.Plain").model.network.head.out_features == 10
    command("train", *FIT, "--data=own_data.Told", given[1])
    cli = command("train", "test", "--data=own_data.Plain")  # the checkpoint knows
    assert cli.model.network.head.out_features == 10


CHILDREN = """
from collections.abc import Sequence

from data.digits import Digits
from models.networks.cnn import CNN


class Still(Digits):
    def __init__(self, **kwargs):
        super().__init__(augment=False, **kwargs)


class Named(CNN):
    def __init__(self, names: Sequence[str] = (), **kwargs):
        super().__init__(**kwargs)
        self.names = names


class Narrow(Named):
    def __init__(self, names: Sequence[str] = ("a",), dropout: float = 0.3, **kwargs):
        super().__init__(names, width=4, dropout=dropout, **kwargs)
"""


def test_a_child_may_set_what_the_configuration_sets_of_its_parent(project, monkeypatch):
    Path("children.py").write_text(CHILDREN)
    monkeypatch.syspath_prepend(project)
    networks = ("--model.network=children.Named", "--model.network=children.Narrow")
    own = ("--data=children.Still", *networks)
    command("train", *FIT, "--model.network.depth=2", *own)
    network = command("train", "test", *SMALL).model.network
    assert network.head.in_features == 4 * 2  # two stages, as given
    assert (network.backbone[-1].p, [*network.names]) == (0.3, ["a"])  # not its parents' defaults
    command("export", "best")
    from predictor import load

    [row] = load("best")(np.zeros((8, 8), np.uint8))
    with torch.no_grad():
        right = network.eval()(torch.full((1, 1, 8, 8), -1.0)).softmax(dim=1)
    found = [row[f"probability_{digit}"] for digit in range(10)]
    torch.testing.assert_close(torch.tensor([found]), right, atol=1e-5, rtol=1e-4)


def test_pictures_need_no_names_of_classes(project, monkeypatch):
    Path("own_data.py").write_text(
        OWN_DATA.replace("torch.arange(32) % 10", "torch.zeros(32).long()")
    )
    monkeypatch.syspath_prepend(project)
    own = ("--data=own_data.Told", "--model.network=own_data.Sevens")
    cli = command("train", *FIT, *own)
    _, captions = cli.model.pictures([torch.zeros(3, 1, 8, 8), torch.tensor([0, 7, -100])])
    assert captions == ["7\n(0)", "7", "7"]


def test_an_evaluation_does_not_speak_of_the_networks_that_its_checkpoint_swaps(
    project, monkeypatch, caplog
):
    Path("own_data.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(project)
    with caplog.at_level("INFO"):
        command("train", *FIT, "--model.network.width=8", "--model.network=own_data.Sevens")
        # What was at its default anyway is not named.
        assert "Sevens instead of models.networks.cnn.CNN: reset width=8\n" in caplog.text
        caplog.clear()
        command("train", "test", *SMALL)
        assert "instead of" not in caplog.text


def test_a_letter_that_a_pipe_lacks_costs_no_output(project, monkeypatch):
    from engine.errors import plain_errors

    pipe = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", pipe)
    with plain_errors():
        print("± 猫", flush=True)
    assert pipe.buffer.getvalue().split() == [b"\\xb1", b"\\u732b"]


def test_a_run_is_not_named_as_another(project):
    with pytest.raises(SystemExit, match="--name version_0: --ckpt_path version_0 means another"):
        command("train", *FIT, "--name=version_0")
    command("train", *FIT)
    with pytest.raises(SystemExit, match="--name and --tags are a fit's"):
        command("train", "test", *SMALL, "--name=version_0")


def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(project, monkeypatch, tmp_path):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    runs = "--trainer.default_root_dir=~/runs"
    command("train", *FIT, runs)
    command("train", "predict", *SMALL, runs, "--ckpt_path=best", "--predictions.output=~/out.csv")
    command("train", *FIT, "--model.init_from=~/runs/version_0", "--trainer.fast_dev_run=true")
    command("export", "best", "--root=~/runs", "--format=pt2", "--output=~/model.pt2")
    made = {path.name for path in (tmp_path / "home").iterdir()}
    assert made == {"runs", "out.csv", "model.pt2"}
    assert not Path("~").exists()


def test_a_run_is_tested_with_its_own_settings_without_a_word(project, caplog):
    command("train", *FIT)
    caplog.clear()
    command("train", "test", "--config=logs/version_0/config.yaml", "--ckpt_path=best")
    assert "As given" not in caplog.text


@pytest.mark.parametrize("name", ["1e3", "1.5E2"])
def test_a_class_may_be_called_as_a_number_is_written(render, tmp_path, name):
    with inside(render(data="image_folder", model="cnn"), tmp_path):
        write_images(tmp_path / "images", (name, "other"))
        options = ["--data.data_dir=images", "--data.image_size=16", "--model.network.depth=2"]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        cli = command("train", "test", *options, "--ckpt_path=best")
        assert cli.model.class_names == [name, "other"]


def test_commands_with_spaces_can_be_pasted(project, capfd):
    command("train", *FIT, "--trainer.default_root_dir=my logs")
    [line] = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Test:")]
    words = shlex.split(line.removeprefix("Test:"))
    command("train", *words[2:], *SMALL)


def test_an_optimizer_may_be_a_function(project, monkeypatch):
    Path("own_data.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(project)
    mixed = ("--trainer.precision=bf16-mixed", "--trainer.gradient_clip_val=1")
    cli = command("train", *FIT, "--model.optimizer=own_data.optimizer", *mixed)
    assert type(cli.trainer.optimizers[0]) is torch.optim.SGD


def test_the_best_checkpoint_is_ours_beside_another(project, capfd):
    other = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    trainer = command("train", *FIT, other).trainer
    assert trainer.checkpoint_callback.monitor == "val/brier"
    assert trainer.checkpoint_callback.best_model_score is not None
    assert len(trainer.checkpoint_callbacks) == 3


BEST = """
from models.classifier import Classifier

class Own(Classifier):
    monitor = "val/acc"
    mode = "max"
"""


def test_a_system_says_what_is_best(render, tmp_path, capfd):
    project = render(copy=True)
    (project / "own.py").write_text(BEST)
    fit = ["fit", *SMALL, "--trainer.fast_dev_run=false", "--trainer.max_epochs=1"]

    def monitored(*options: str) -> list[tuple[str, str]]:
        trainer = command("train", *fit, *options).trainer
        callbacks = trainer.checkpoint_callback, *trainer.early_stopping_callbacks
        return [(callback.monitor, callback.mode) for callback in callbacks]

    with inside(project, tmp_path):
        assert monitored() == [("val/brier", "min")] * 2
        assert monitored("--model=own.Own") == [("val/acc", "max")] * 2
        best = "--best_checkpoint.monitor=val/loss"
        assert monitored(best) == [("val/loss", "min"), ("val/brier", "min")]
        with pytest.raises(SystemExit):
            monitored("--early_stopping=null")
        assert "early_stopping: null, so leave it out" in capfd.readouterr().err
        sought = "early_stopping.monitor is val/f1: say whether more is better: --early_stopping.mode max"
        with pytest.raises(SystemExit, match=sought):
            monitored("--early_stopping.monitor=val/f1")
        unknown = "PatientStopping looks at val/f1, .* logs val/acc, val/brier, val/loss"
        with pytest.raises(SystemExit, match=unknown):
            monitored("--early_stopping.monitor=val/f1", "--early_stopping.mode=max")


@pytest.mark.parametrize(("model", "metric"), [("cnn", "val/acc"), ("gan", "val/frechet")])
def test_a_plateau_is_looked_for_after_validations(render, tmp_path, model, metric):
    plateau = "--model.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"
    options = ("--trainer.max_epochs=4", "--trainer.check_val_every_n_epoch=2", plateau)
    with inside(render(model=model), tmp_path):
        monitor = f"--model.scheduler_monitor={metric}"
        trainer = command("train", "fit", *SMALL, *options, monitor).trainer
        assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 2
        with pytest.raises(SystemExit, match=r"scheduler_monitor is val/lss, .* val/"):
            command("train", "fit", *SMALL, *options, "--model.scheduler_monitor=val/lss")


@pytest.mark.parametrize(("name", "k"), [("best_checkpoint", 3), ("last_checkpoint", -1)])
def test_several_checkpoints_want_several_names(project, capfd, name, k):
    message = error(capfd, f"--{name}.save_top_k={k}")
    assert f"{name}.save_top_k is {k}, but all would have one name" in message
    options = [f"--{name}.save_top_k={k}", f"--{name}.filename={{epoch}}-{{val/loss:.0f}}"]
    fit = command("train", *FIT, *options)
    loss = fit.trainer.callback_metrics["val/loss"]
    assert Path(f"logs/version_0/checkpoints/epoch=0-val_loss={loss:.0f}.ckpt").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pictures: null", "pictures is null: leave it out"),
        ("trainer: {devices: null}", "trainer.devices is null: leave it out, which means auto"),
        (
            "data: {init_args: {batch_size: null}}",
            "batch_size is null: leave it out, which means auto",
        ),
        ("model: {init_args: {optimizer: null}}", "optimizer is null: .* means AdamW"),
        ("trainer: {accumulate_grad_batches: 0}", "accumulate_grad_batches is 0: .* 1 or more"),
        ("trainer: {gradient_clip_val: -1}", "trainer.gradient_clip_val is -1.*: it must be 0 or"),
        ("trainer: {check_val_every_n_epoch: 0}", "n_epoch is 0: it must be 1 or more"),
        ("trainer: {val_check_interval: 0}", "val_check_interval is 0"),
        ("early_stopping: {patience: -1}", "early_stopping.patience is -1: it must be 0 or more"),
        (
            "trainer: {callbacks+: {class_path: engine.lightning_callbacks.EMA, init_args: {decay: 2}}}",
            "decay is 2.*: it must be 0 or more, and less than 1",
        ),
        ("trainer: {default_root_dir: '${HOME}/x'}", r"\$\{HOME\} in a setting is not filled in"),
        (
            "trainer: {callbacks: {one: {class_path: lightning.pytorch.callbacks.Timer}}}",
            "trainer.callbacks: expected a list, each item after a dash",
        ),
        ("recipe: {epochs: -1}", "recipe.epochs is -1: it must be 0 or more"),
        ("seed_everything: -1", "seed_everything: -1 is not in bounds, .* from 0 to 4294967295"),
        (
            "model: {init_args: {network: {init_args: {depth: 0}}}}",
            "depth of .*CNN is 0: .* 1 or more",
        ),
        (
            "trainer: {callbacks+: {class_path: engine.lightning_callbacks.Pruning, init_args: "
            "{final_share: 2}}}",
            "final_share is 2.0 in 10 epochs: it must be 0 or more, and less than 1",
        ),
        (
            "model: {init_args: {network: {init_args: {dropout: -0.1}}}}",
            r"between 0 and 1, but got -0.1 \(models/networks/cnn.py:",
        ),
        (
            "model: {init_args: {scheduler: {init_args: {warmup_steps: -1}}}}",
            "warmup_steps and total_steps must be 0 or more",
        ),
        ("name: \xfc", "mine.yaml is to be saved as UTF-8"),
    ],
)
def test_a_value_that_means_nothing_is_named(project, capfd, text, message):
    Path("mine.yaml").write_bytes(text.encode("latin-1"))
    assert re.search(message, error(capfd, "--config=mine.yaml"))


def test_what_pruning_refuses_is_one_sentence(project):
    prune = "--trainer.callbacks+=ModelPruning"
    options = [
        f"--trainer.callbacks.{name}" for name in ("pruning_fn=l1_unstructured", "amount=-2")
    ]
    with pytest.raises(SystemExit, match="^error: amount=-2 should either be a float"):
        command("train", *FIT, prune, *options)


def test_numbers_below_zero_that_mean_something_are_taken(project):
    options = ["--trainer.max_epochs=-1", "--trainer.max_steps=1", "--early_stopping.min_delta=-1"]
    options += ["--trainer.num_sanity_val_steps=-1", "--early_stopping.stopping_threshold=-2.5"]
    assert command("train", *FIT, *options).trainer.global_step == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--ckpt_path=", "--ckpt_path : no checkpoint there"),
        ("--model.init_from=", "--model.init_from : no checkpoint there"),
        ("--data.predict_dir=", "predict_dir is empty"),
        ("--config=", "--config holds no settings"),
    ],
)
def test_an_empty_value_is_no_value_left_out(project, capfd, option, message):
    """As of a variable of a script that is not set: the fit would start over."""
    assert message in error(capfd, option)


def test_null_is_taken_where_it_means_something(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    Path("own.py").write_text(
        "from data.digits import Digits\n"
        "class Own(Digits):\n"
        "    def __init__(self, limit: int = None, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
    )
    command("train", *FIT, "--data=own.Own")
    Path("mine.yaml").write_text("model: {init_args: {scheduler: null}}\ntrainer: {logger: null}")
    assert command("train", *FIT, "--config=mine.yaml").model.scheduler is None


def test_a_score_is_that_of_the_weights_it_is_saved_with(project, capfd):
    every = "every_n_train_steps=1"
    assert "val/brier is not measured where" in error(capfd, f"--best_checkpoint.{every}")
    more = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.{every}"]
    assert "val/loss is not" in error(capfd, *more, "--trainer.callbacks.monitor=val/loss")
    command("train", *FIT, f"--best_checkpoint.{every}", "--best_checkpoint.monitor=train/loss")


@pytest.mark.parametrize("short", ["EarlyStopping", "ModelCheckpoint", "TensorBoardLogger"])
def test_a_class_of_lightning_is_known_by_its_name_alone(project, capfd, short):
    """Where a class of the project has the same name, jsonargparse takes neither."""
    key = "logger" if short.endswith("Logger") else "callbacks"
    message = error(capfd, f"--trainer.{key}+={short}", f"--trainer.{key}.no_such_option=1")
    assert re.search(rf"'no_such_option' is not accepted by lightning\.\S+\.{short}\.", message)


@pytest.mark.parametrize(
    "text",
    [
        "trainer:\n  max_epochs: 1\nname: a\ntrainer:\n  max_steps: 2\n",
        "trainer:\n  callbacks+:\n  - init_args: {trainer: 1, \n     trainer: 2}\n",
    ],
    ids=["group", "in a list"],
)
def test_a_key_that_stands_twice_in_a_file_is_named(project, capfd, text):
    Path("mine.yaml").write_text(text)
    assert "trainer stands twice, again in line 4" in error(capfd, "--config=mine.yaml")


def test_the_distance_of_a_gan_is_as_exact_in_mixed_precision_and_nan_if_it_diverges(render):
    with inside(render(model="gan")):
        from models.frechet import Moments, frechet_distance

        images = torch.rand(500, 1, 28, 28)
        exact, mixed, diverged = Moments(), Moments(), Moments()
        exact.update(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed.update(images)
        assert mixed.sums.dtype == torch.float64
        assert frechet_distance(exact, mixed) == pytest.approx(0, abs=1e-6)
        diverged.update(images * float("inf"))
        assert math.isnan(frechet_distance(exact, diverged))


def test_the_processes_of_a_gan_make_images_of_their_own(render, monkeypatch):
    with inside(render(model="gan")):
        from models.gan import GAN
        from models.networks.gan import ConvGAN

        gan, drawn = GAN(ConvGAN((1, 8, 8))), []

        class Drawn(Exception):
            pass

        def draw(generator, arguments):
            drawn.append(arguments[0])
            raise Drawn

        gan.network.generator.register_forward_pre_hook(draw)
        monkeypatch.setattr(gan, "optimizers", lambda: (None, None))
        for rank in range(2):
            torch.manual_seed(0)
            trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
            monkeypatch.setattr(type(trainer), "global_rank", rank)
            gan.trainer = trainer
            with pytest.raises(Drawn):
                gan.training_step((torch.zeros(4, 1, 8, 8), None), 0)
        assert drawn[0].shape == drawn[1].shape == (4, 64)
        assert not torch.isin(drawn[0], drawn[1]).any()


def test_a_gan_has_its_whole_schedule_in_max_steps(render, tmp_path):
    with inside(render(model="gan"), tmp_path):
        options = ("--trainer.max_steps=8", "--trainer.limit_train_batches=10")
        trainer = command("train", "fit", *SMALL, *options).trainer
        assert trainer.lr_scheduler_configs[0].scheduler.total_steps == 4


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [(["test"], True), (["fit"], False), (["--ckpt_path=last"], False), ([], False)],
)
def test_only_an_evaluation_may_lack_the_callbacks_of_its_checkpoint(
    project, monkeypatch, arguments, hidden
):
    from engine import warning_filters

    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warning_filters.silence()
        patterns = [message.pattern for _, message, *_ in warnings.filters if message]
    assert any("using `ckpt_path`" in pattern for pattern in patterns) == hidden


def test_warnings_are_one_line_as_errors_are(project, monkeypatch):
    from engine.errors import ENGINE, plain_errors

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with plain_errors():
        shown = partial(warnings.formatwarning, UserWarning("So."), UserWarning, lineno=3)
    assert shown(str(ENGINE / "facts.py")) == "warning: So.\n"
    own = Path("data", "digits.py")
    assert shown(str(ENGINE.parent / own)) == f"warning: So. ({own}:3)\n"


def test_another_progress_bar_takes_the_place_of_ours(project):
    bar = ["--trainer.enable_progress_bar=true", "--trainer.callbacks+=RichProgressBar"]
    trainer = command("train", *FIT, *bar).trainer
    assert type(trainer.progress_bar_callback).__name__ == "RichProgressBar"


def test_arguments_that_torchs_schedulers_refuse_are_one_sentence(project, capfd):
    one_cycle = "--model.scheduler=torch.optim.lr_scheduler.OneCycleLR"
    message = error(
        capfd, one_cycle, "--model.scheduler.max_lr=0.1", "--model.scheduler.pct_start=2"
    )
    assert message.startswith("error: Expected float between 0 and 1 pct_start")
    message = error(capfd, "--model.scheduler=torch.optim.lr_scheduler.ChainedScheduler")
    assert message.startswith("error: The scheduler cannot be made of an optimizer alone")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.accelerator=cup", "invalid accelerator name"),
        ("--trainer.devices=none", "`devices` selected with"),
        ("--trainer.strategy=dpp", "invalid strategy name"),
    ],
)
def test_what_the_trainer_refuses_is_one_sentence(project, capfd, option, message):
    assert message in error(capfd, option)


def test_a_fit_without_checkpoints_is_not_tested(project, capfd):
    options = ["--test_after_fit=true", "--trainer.enable_checkpointing=false"]
    assert "with enable_checkpointing false there is no best one" in error(capfd, *options)


def test_a_gan_fits_with_ddp_as_it_comes(render, tmp_path):
    before = dict(os.environ)
    try:
        with inside(render(model="gan"), tmp_path):
            command("train", *FIT, "--trainer.strategy=ddp", "--trainer.max_steps=2")
    finally:  # else later tests would find this group, and its port
        torch.distributed.destroy_process_group()
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def test_a_gan_wants_the_metric_of_its_schedulers(render, tmp_path):
    with inside(render(model="gan"), tmp_path):
        options = ["--model.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"]
        options += ["--trainer.max_epochs=2", "--model.scheduler_monitor=val/acc"]
        with pytest.raises(SystemExit, match="^error: scheduler_monitor is val/acc.*val/frechet"):
            command("train", *FIT, *options)


def test_a_gan_refuses_an_optimizer_that_makes_its_steps_itself(render, tmp_path, capfd):
    with inside(render(model="gan"), tmp_path):
        with pytest.raises(SystemExit, match="LBFGS"):
            command("train", *FIT, "--model.optimizer=torch.optim.LBFGS")


def test_an_error_in_a_data_worker_is_one_sentence(render, tmp_path):
    with inside(render(data="image_folder"), tmp_path):
        options = small_data("image_folder", tmp_path / "data")
        for image in (tmp_path / "data").rglob("*.jpg"):  # whichever is trained on
            image.write_bytes(image.read_bytes()[:40])
        options += ["--trainer.limit_train_batches=1.0", "--data.num_workers=1"]
        with pytest.raises(
            SystemExit,
            match=rf"^error: {tmp_path}/data/.*jpg cannot be read as an image.* \(data/\w+.py:\d+\)$",
        ):
            command("train", *FIT, *options)


def test_help_shows_what_most_people_want_and_where_the_rest_is(project, capsys):
    with pytest.raises(SystemExit) as stop:
        command("train", "fit", "--help")
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 30
    assert [line for line in shown.splitlines() if len(line) > 100] == []
    for option in ("--trainer.max_epochs 20 ", "--data.batch_size 64 ", "--model.lr 0.002 "):
        assert option in shown
    assert "--model.network models.networks.cnn.CNN " in shown
    with pytest.raises(SystemExit):
        command("train", *shown.partition("python train.py fit --help all")[1].split()[2:])
    assert "--trainer.gradient_clip_val" in capsys.readouterr().out
    for bare in ("--help", "-h"):
        with pytest.raises(SystemExit):
            command("train", bare)
        assert capsys.readouterr().out == shown
    with pytest.raises(SystemExit):
        command("train", "test", "--help")
    assert "--ckpt_path" in (evaluated := capsys.readouterr().out)
    assert "--model.lr" not in evaluated and "--name" not in evaluated
    with pytest.raises(SystemExit):
        command("train", *FIT, "--model=resnet")
    assert "resnet is no class path; a network: --model.network models." in (
        capsys.readouterr().err
    )


def test_a_file_that_is_no_yaml_is_named(project, capfd):
    Path("worse.yaml").write_text("trainer:\n  max_epochs: 3\n bad")
    with pytest.raises(SystemExit):
        command("train", *FIT, "--config=worse.yaml")
    assert 'in "worse.yaml", line 3' in capfd.readouterr().err
