"""Callbacks and configs that are off unless asked for: each runs, acts, warns of nothing, resumes."""

import contextlib
import copy
import csv
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fixtures import write_images
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image
from projects import ONE_CPU, QUIET, command, inside
from templates import ROOT

CONFIGS = ROOT / "{{cookiecutter.project_slug}}" / "configs"
BATCHES, EPOCHS = 4, 3
LIMITS = [f"--trainer.limit_{kind}_batches=2" for kind in ("val", "test", "predict")]
SMALL = [*ONE_CPU, *QUIET, *LIMITS, "--data.batch_size=16", "--trainer.log_every_n_steps=2"]
CSV_LOGGER = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=x"]
RUN = Path("logs/version_0")


@pytest.fixture
def train(render, tmp_path, recwarn):
    """Runs the command line in an empty folder and lets no warning pass."""

    def train(subcommand: str, *options: str):
        cli = command("train", subcommand, *SMALL, *CSV_LOGGER, *options)
        warnings = [w for w in recwarn if not issubclass(w.category, DeprecationWarning)]
        assert [str(warning.message) for warning in warnings] == []
        return cli

    with inside(render(), tmp_path):
        Path("configs").symlink_to(render() / "configs")
        yield train


def configs(kind: str, *names: str) -> list[str]:
    return [f"--config=configs/{kind}/{name}.yaml" for name in names]


def fit(train, *options: str, epochs: int = EPOCHS):
    batches = f"--trainer.limit_train_batches={BATCHES}"
    return train("fit", batches, *options, f"--trainer.max_epochs={epochs}")


def logged() -> dict[str, list[int]]:
    """The steps at which each metric was logged."""
    metrics: dict[str, list[int]] = {}
    with (RUN / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name in [name for name, value in row.items() if value]:
                metrics.setdefault(name, []).append(int(row["step"]))
    return metrics


def load_last() -> dict:
    return torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)


def find(cli, name: str):
    [callback] = [c for c in cli.trainer.callbacks if type(c).__name__ == name]
    return callback


def same(a, b) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- What each of them does -------------------------------------------------------------------------


def swa(cli, checkpoint):
    assert checkpoint["epoch"] == EPOCHS  # one more than asked for
    average = find(cli, "SWA")._average_model.state_dict()
    names = [name for name, _ in cli.model.named_parameters()]
    assert same([average[n] for n in names], [checkpoint["state_dict"][n] for n in names])


def ema(cli, checkpoint):
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert average.keys() == current.keys()
    assert not same(average.values(), current.values())
    assert same(average.values(), cli.model.state_dict().values())


def pruning(cli, checkpoint):
    weights = torch.cat(
        [w.flatten() for name, w in checkpoint["state_dict"].items() if name.endswith("weight")]
    )
    assert (weights == 0).float().mean().item() == pytest.approx(0.75, abs=1e-3)
    assert not any(name.endswith(("_orig", "_mask")) for name in checkpoint["state_dict"])


def backbone_finetuning(cli, checkpoint):
    head, _, backbone = cli.trainer.optimizers[0].param_groups  # the second: norms and biases
    assert 0 < backbone["lr"] < head["lr"]
    assert sum(p.numel() for p in backbone["params"]) > sum(p.numel() for p in head["params"])


def timer(cli, checkpoint):
    assert 0 < checkpoint["global_step"] == cli.trainer.global_step < 1000 * BATCHES


OPTIONS = {
    swa: ["--trainer.callbacks.swa_epoch_start=2"],  # the same in a longer fit
    pruning: ["--trainer.callbacks.final_share=0.75", "--trainer.callbacks.epochs=2"],
    backbone_finetuning: ["--trainer.callbacks.unfreeze_backbone_at_epoch=1"],
    timer: ["--trainer.callbacks.duration=00:00:00:01"],
}
CHECKS = {check.__name__: check for check in (swa, ema, pruning, backbone_finetuning, timer)}
MONITORS = ["device_stats", "norms", "throughput"]


def test_every_config_is_checked():
    checked = {*CHECKS, *MONITORS, "gradient_accumulation", "table_charts"}  # test_tables.py
    assert checked == {path.stem for path in (CONFIGS / "callbacks").glob("*.yaml")}


@pytest.mark.parametrize("name", CHECKS)
def test_callback_acts_resumes_and_spares_evaluations(train, name):
    options = OPTIONS.get(CHECKS[name], [])
    epochs = 1000 if name == "timer" else EPOCHS
    CHECKS[name](fit(train, *configs("callbacks", name), *options, epochs=epochs), load_last())
    steps = load_last()["global_step"]
    again = [f"--config={RUN}/config.yaml", "--ckpt_path=last"]
    resumed = fit(train, *again, epochs=epochs + 2)
    assert resumed.trainer.global_step > steps or name == "timer"  # its time is over
    saved = load_last()["figures"]
    train("test")
    if name != "timer":  # the score is that of the weights that are saved with it
        found = train("validate", "--ckpt_path=last").trainer.callback_metrics
        for metric, value in found.items():
            assert value.item() == pytest.approx(saved[metric][0], abs=1e-5)


def test_the_norm_is_that_of_the_gradients_not_of_the_scaled_loss(render, tmp_path):
    with inside(render(), tmp_path):
        from callbacks.norms import Norms

        norms = []
        for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
            torch.manual_seed(0)
            weight = torch.nn.Parameter(torch.ones(2))
            optimizer = torch.optim.AdamW([weight], fused=True)
            weight.grad = torch.tensor([3.0, 4.0]) * (1024 if scaler else 1)
            trainer = SimpleNamespace(
                fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=0)),
                log_every_n_steps=1,
                optimizers=[optimizer],
                precision_plugin=SimpleNamespace(scaler=scaler),
            )
            if scaler:
                scaler.scale(torch.ones(1))  # makes it
            module = SimpleNamespace(log=lambda name, value: norms.append((name, value.item())))
            Norms().on_before_optimizer_step(trainer, module, optimizer)
        assert norms[:2] == norms[2:]
        assert norms[0] == ("train/gradient_norm", 5.0)


def test_gradients_are_added_up(train):
    assert fit(train, *configs("callbacks", "gradient_accumulation")).trainer.global_step == EPOCHS


def test_monitors_log_together(train):
    """`trainer.callbacks` of a file only adds to those of another."""
    fit(train, *configs("callbacks", *MONITORS), "--trainer.callbacks.window_size=2")
    metrics = logged()
    assert metrics["train/gradient_norm"] == metrics["train/weight_norm"] == metrics["train/loss"]
    assert any(name.endswith("samples_per_sec") for name in metrics)
    assert any("cpu_percent" in name for name in metrics)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema", "pruning", "backbone_finetuning"])
def test_resume_is_exact(train, name):
    options = [*configs("callbacks", name), *OPTIONS.get(CHECKS[name], [])]
    if name != "backbone_finetuning":
        options.append("--model.scheduler.total_steps=20")
    fit(train, *options, epochs=2)
    fit(train, *options, "--ckpt_path=last", epochs=4)
    resumed = load_last()
    whole = fit(train, *options, epochs=4)
    assert whole.trainer.default_root_dir == "logs/version_1"
    expected = torch.load("logs/version_1/checkpoints/last.ckpt", weights_only=True)
    assert same(resumed["state_dict"].values(), expected["state_dict"].values())


def test_averages_are_no_mixture_of_those_of_a_shorter_fit(train):
    """Of 4 epochs the last two are averaged, of 8 the last three: not the 4 and the 8 together."""
    options = configs("callbacks", "swa")
    fit(train, *options, epochs=4)
    with pytest.raises(
        SystemExit, match="since epoch 2, and .* since epoch 5: .* the number 3, or"
    ):
        fit(train, *options, "--ckpt_path=last", epochs=8)
    resumed = fit(
        train, *options, "--ckpt_path=last", "--trainer.callbacks.swa_epoch_start=3", epochs=8
    )
    assert resumed.trainer.current_epoch == 9


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_an_average_of_pruned_weights_is_refused(train, name):
    with pytest.raises(SystemExit, match="Pruning keeps weights at zero"):
        fit(train, *configs("callbacks", name, "pruning"))


def test_confusion_matrix_counts_each_image(train, capsys):
    fit(train)
    metrics = train("test", "--trainer.limit_test_batches=1.0").trainer.callback_metrics
    with (RUN / "confusion_matrix.csv").open(newline="") as file:
        [_, *names], *rows = csv.reader(file)
    counts = torch.tensor([[int(count) for count in row] for _, *row in rows])
    assert names == [name for name, *_ in rows] == [str(i) for i in range(10)]
    assert counts.sum() == 364
    assert counts.diag().sum() / counts.sum() == pytest.approx(metrics["test/acc"].item(), abs=1e-6)
    assert (RUN / "confusion_matrix.png").stat().st_size > 5000
    with (RUN / "accuracy_by_class.csv").open(newline="") as file:
        by_class = list(csv.DictReader(file))
    assert [int(row["correct"]) for row in by_class] == counts.diag().tolist()
    assert [int(row["samples"]) for row in by_class] == counts.sum(dim=1).tolist()
    printed = capsys.readouterr().out
    assert f"Right by class: 0: {counts[0, 0]} of {counts[0].sum()}, 1: " in printed


def test_what_a_chart_says_begins_a_line_of_its_own_in_a_terminal(train, capsys, monkeypatch):
    fit(train)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train("test", "--trainer.enable_progress_bar=true")
    printed = capsys.readouterr().out
    assert "Testing DataLoader" in printed.partition("\nRight by class: ")[0]


@pytest.mark.parametrize(
    ("data", "model", "files"),
    [
        ("digits", "cnn", ["confusion_matrix.csv"]),
        ("diabetes", "mlp", ["importance.csv", "predicted.png"]),
        ("demand", "tcn", ["lead_times.csv"]),
    ],
)
def test_a_file_that_cannot_be_written_costs_no_figure(render, tmp_path, data, model, files):
    project = render(data=data, model=model)
    with inside(project, tmp_path):
        Path("configs").symlink_to(project / "configs")
        command("train", "fit", *SMALL, "--trainer.limit_train_batches=2", "--trainer.max_epochs=1")
        for name in files:
            (RUN / name).mkdir()
        charts = configs("callbacks", "table_charts") if data == "diabetes" else []
        with pytest.warns(UserWarning) as caught:
            metrics = command("train", "test", *SMALL, *charts).trainer.callback_metrics
        said = [Path(w.message.args[0]).name for w in caught if "Is a dir" in str(w.message)]
        assert said == [f"{name}: Is a directory" for name in files]
        assert metrics["test/loss"].isfinite()


# --- configs/debug ----------------------------------------------------------------------------------

FILES = {
    "one_step": None,
    "overfit": [],
    "limited": [],
    "anomaly": [],
    "profile": ["fit-profile.txt"],
    "profile_advanced": ["fit-profile.txt"],
    "profile_pytorch": ["fit-profile.txt", "fit-profile-*.pt.trace.json"],
}


def test_confusion_matrix_has_what_the_system_predicts_of_known_labels(render):
    """A system may predict another class than the most probable one."""
    with inside(render(model="mlp")):
        from callbacks.confusion_matrix import ConfusionMatrix

        chart = ConfusionMatrix()
        chart.on_test_start(None, None)
        outputs = {"probability": torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])}
        outputs["prediction"] = (outputs["probability"][:, 1] > 0.3).long()
        chart.add(None, (None, torch.tensor([1, 0, -1])), outputs, 0)
        scores = {**outputs, "prediction": outputs["probability"].amax(1)}
        with pytest.raises(ValueError, match="prediction is no class"):
            chart.add(None, (None, torch.tensor([1, 0, -1])), scores, 1)
    assert chart.matrix.compute().tolist() == [[1, 0], [0, 1]]


def test_a_schedule_that_takes_no_more_parameters_is_a_sentence(train):
    schedule = "--model.scheduler=models.warmup_cosine.WarmupCosine"
    options = [*configs("callbacks", "backbone_finetuning"), *OPTIONS[backbone_finetuning]]
    with pytest.raises(SystemExit, match="takes no added parameters: --model.scheduler null"):
        fit(train, *options, schedule)


def test_confusion_matrix_takes_any_class_names(render, tmp_path, recwarn):
    classes = ("a$b$c", "\N{HIRAGANA LETTER A}", *map(str, range(20)))
    with inside(render(data="image_folder"), tmp_path):
        write_images(tmp_path / "images", classes, count=5, size=8)
        options = ["--data.data_dir=images", "--data.image_size=8", "--trainer.max_epochs=1"]
        for subcommand in ("fit", "test"):
            command("train", subcommand, *SMALL, *options, "--trainer.limit_test_batches=1.0")
        assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []
        with Image.open(RUN / "confusion_matrix.png") as picture:
            assert picture.width > 30 * len(classes)


def test_a_confusion_matrix_of_many_classes_can_be_opened(render, tmp_path):
    with inside(render(), tmp_path):
        from callbacks.confusion_matrix import ConfusionMatrix

        matrix = ConfusionMatrix()
        module = SimpleNamespace()
        trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
        trainer.strategy.predict_step = lambda *_: {"probability": torch.eye(450)}
        matrix.on_test_start(trainer, module)
        matrix.on_test_batch_end(trainer, module, None, (None, torch.arange(450)), 0)
        matrix.on_test_epoch_end(trainer, module)
        with Image.open("confusion_matrix.png") as picture:
            assert picture.width * picture.height < Image.MAX_IMAGE_PIXELS


def test_pictures_come_at_the_first_validation_of_so_many_epochs(render, tmp_path):
    with inside(render(), tmp_path):
        from callbacks import pictures

        shown, noise, random = [], lambda: torch.rand(1, 1, 8, 8), torch.get_rng_state()
        module = SimpleNamespace()
        trainer = SimpleNamespace(
            loggers=[1],
            sanity_checking=False,
            fast_dev_run=False,
            is_global_zero=False,
            state=SimpleNamespace(fn="fit"),
            precision_plugin=SimpleNamespace(val_step_context=contextlib.nullcontext),
        )
        for epochs, expected in ((range(12), [0, 5, 10]), (range(4, 30, 5), [*range(4, 30, 5)])):
            shown.clear()
            callback = pictures.Pictures(every_n_epochs=5)
            module.pictures = lambda batch: (shown.append(trainer.current_epoch) or noise(), [""])
            for trainer.current_epoch in epochs:
                callback.on_validation_batch_end(trainer, module, None, [torch.ones(1)], 0)
            assert shown == expected
        assert torch.get_rng_state().equal(random)  # a fit without pictures draws the same


def test_a_copy_of_the_system_copies_no_trainer_and_no_data(train):
    # Averages of weights are copies of it; in several processes a Trainer cannot be copied.
    system = fit(train, epochs=1).model
    copied: dict[int, Any] = {}
    copy.deepcopy([system.optimizer, system.scheduler], copied)
    kinds = (Trainer, LightningDataModule)
    assert not [each for each in copied.values() if isinstance(each, kinds)]


def test_a_test_after_the_fit_takes_the_averaged_weights(train):
    options = configs("callbacks", "ema")
    cli = fit(train, *options, "--test_after_fit=true")
    after_fit = cli.trainer.callback_metrics["test/loss"]
    assert train("test", *options).trainer.callback_metrics["test/loss"] == after_fit


def test_every_debug_config_is_checked():
    assert FILES.keys() == {path.stem for path in (CONFIGS / "debug").glob("*.yaml")}


@pytest.mark.parametrize("name", FILES)
def test_debug_config(train, name):
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=8"]
    cli = train("fit", *short, *configs("debug", name))
    assert Path("logs").exists() == (name != "one_step")
    for pattern in FILES[name] or []:
        assert list(RUN.glob(pattern)), pattern
    if name == "overfit":
        assert cli.trainer.callback_metrics["train/loss"] < 0.1


# --- Other models -----------------------------------------------------------------------------------

TOGETHER = ("ema", "device_stats", "throughput", "norms")
MODELS = [
    *itertools.product(("vit", "resnet", "autoencoder", "gan"), (TOGETHER, ("pruning",))),
    *itertools.product(("vit", "resnet", "autoencoder"), (("swa",), ("gradient_accumulation",))),
    ("resnet", ("backbone_finetuning",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "names"), MODELS)
def test_other_models(render, tmp_path, recwarn, model, names):
    """Several at once: `trainer.callbacks` of a file only adds."""
    project = render(model=model)
    with inside(project, tmp_path):
        files = [f"--config={project}/configs/callbacks/{name}.yaml" for name in names]
        options = [*SMALL, *CSV_LOGGER, *files, "--trainer.limit_train_batches=4"]
        cli = command("train", "fit", *options, "--trainer.max_epochs=3")
        kinds = {type(callback).__name__ for callback in cli.trainer.callbacks}
        assert kinds >= {"BestCheckpoint", "PatientStopping", "LearningRateMonitor", "Pictures"}
        assert len(kinds - {"RunRecord", "ExactResume", "Predictions"}) >= 4 + len(names)
        if "norms" in names:
            norm = [name for name in logged() if name.startswith("train/gradient_norm")]
            assert len(norm) == (2 if model == "gan" else 1)
        command("train", "test", *SMALL, *CSV_LOGGER)
    warnings = [w for w in recwarn if not issubclass(w.category, DeprecationWarning)]
    assert [str(warning.message) for warning in warnings] == []


@pytest.mark.slow
def test_confusion_matrix_of_two_processes(render, tmp_path):
    project = render()
    script = [sys.executable, str(project / "train.py")]
    two = [*SMALL, "--trainer.devices=2", "--trainer.strategy=ddp"]
    for arguments in (
        ["fit", *SMALL, "--trainer.limit_train_batches=2", "--trainer.max_epochs=1"],
        ["test", *two, "--trainer.limit_test_batches=1.0"],
    ):
        subprocess.run([*script, *arguments], cwd=tmp_path, check=True, capture_output=True)
    with (tmp_path / RUN / "confusion_matrix.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert sum(int(n) for n in itertools.chain.from_iterable(row[1:] for row in rows)) == 364
