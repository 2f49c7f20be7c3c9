"""What a training step may cost on an accelerator, shown by counting on a device without numbers."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loops import fit_loop
from lightning.pytorch.strategies import SingleDeviceStrategy
from projects import QUIET, SMALL, command, evaluate, inside, small_data
from templates import CELLS, DATA, each_once, row_of
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")


class MetaAccelerator(CPUAccelerator):
    """torch's device without numbers: who waits for a result of it gets an error."""

    def setup_device(self, device):
        pass


class MetaStrategy(SingleDeviceStrategy):
    """Trains on the device without numbers."""

    def __init__(self):
        super().__init__(META, MetaAccelerator())


class Copies(TorchDispatchMode):
    """Records what goes from main memory to the device."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "copy" in function.__name__:
            *_, source = [each for each in args if isinstance(each, torch.Tensor)]
            if result.is_meta and not source.is_meta:
                self.copies.append((tuple(source.shape), source.dtype))
        return result


class Steps(Callback):
    """Records from the second step on: the first makes the optimizer's state."""

    def __init__(self):
        self.mode = Copies()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        assert all(each.is_meta for each in batch if isinstance(each, torch.Tensor))
        if batch_idx == 1:
            self.mode.__enter__()

    def on_train_end(self, trainer, pl_module):
        self.mode.__exit__(None, None, None)


@pytest.fixture
def fit_on_meta(render, tmp_path, monkeypatch):
    def fit(model, *options, data="digits"):
        steps = Steps()
        with inside(render(data=data, model=model), tmp_path):
            options = (*small_data(data, tmp_path / "data"), *options)
            from engine import cli, divergence

            looks: list[int] = []  # at so many losses

            def look(self, *_):
                looks.append(len(self.losses))
                self.losses.clear()

            monkeypatch.setattr(divergence.Divergence, "look", look)

            def instantiate_trainer(self, original=cli.CLI.instantiate_trainer):
                trainer = original(self, accelerator="auto", strategy=MetaStrategy())
                trainer.callbacks.append(steps)
                return trainer

            # The fit's end would bring everything back.
            monkeypatch.setattr(Trainer, "_teardown", lambda self: None)
            # Lightning counts the batches on the device, once.
            monkeypatch.setattr(fit_loop, "has_len_all_ranks", lambda *_, **__: True)
            monkeypatch.setattr(cli.CLI, "instantiate_trainer", instantiate_trainer)
            command(
                *("train", "fit", "--trainer.max_steps=12", "--trainer.enable_checkpointing=false"),
                *("--trainer.log_every_n_steps=5", "--trainer.limit_val_batches=0"),
                *("--trainer.logger=false", "--trainer.enable_progress_bar=false"),
                *("--model.optimizer.fused=false", *options),
            )
        assert sum(size > 0 for size in looks) <= 3, "more than once in a logging interval"
        numbers = [copy for copy in steps.mode.copies if not copy[0]]
        assert len(numbers) <= 8, "more than Lightning needs to make its metrics, in 12 steps"
        return {copy for copy in steps.mode.copies if copy[0]}

    return fit


ON_DIGITS = [model for data, model in CELLS if data == "digits"]


@pytest.mark.parametrize("model", ON_DIGITS)
def test_a_step_waits_for_nothing_and_fetches_images_on_the_device(fit_on_meta, model):
    copies = fit_on_meta(model, "--data.on_device=true", "--data.augment=true")
    assert copies == {((64,), torch.int64)}  # which images


OTHER = [cell for cell in each_once() if DATA[cell[0]]["modality"] != "images"]


@pytest.mark.parametrize(
    ("data", "model"), {row_of(*cell)["system"]: cell for cell in reversed(OTHER)}.values()
)
def test_a_step_of_other_data_waits_for_nothing(fit_on_meta, data, model):
    # Epochs that are longer than the fit: at their ends the loss is read.
    copies = fit_on_meta(model, "--data.on_device=false", "--data.batch_size=2", data=data)
    assert copies and all(shape[0] == 2 for shape, _ in copies)


@pytest.mark.parametrize("model", ON_DIGITS)
def test_images_in_main_memory_cross_as_bytes(fit_on_meta, model):
    copies = fit_on_meta(model, "--data.on_device=false")
    assert copies == {((64, 1, 8, 8), torch.uint8), ((64,), torch.int64)}


def test_losses_are_logged_as_often_as_they_are_written(render, tmp_path, monkeypatch):
    calls = []
    log = LightningModule.log
    monkeypatch.setattr(
        LightningModule,
        "log",
        lambda self, name, *a, **k: calls.append(name) or log(self, name, *a, **k),
    )
    with inside(render(data="digits", model="mlp"), tmp_path):
        command(
            *("train", "fit", "--trainer.max_steps=35", "--trainer.log_every_n_steps=10"),
            *("--trainer.limit_val_batches=0", "--data.batch_size=16", *QUIET),
        )
    assert calls == ["train/loss"] * 3


def test_the_loss_is_known_at_the_end_of_an_epoch_shorter_than_the_interval(render, tmp_path):
    with inside(render(data="digits", model="mlp"), tmp_path):
        monitor = ("--best_checkpoint.monitor=train/loss", "--best_checkpoint.mode=min")
        cli = command("train", "fit", *SMALL, "--trainer.max_epochs=1", *monitor)
        assert cli.trainer.log_every_n_steps > cli.trainer.global_step
        assert cli.best.best_model_score == cli.trainer.callback_metrics["train/loss"]


def test_the_bar_shows_the_losses(render, tmp_path):
    with inside(render(data="digits", model="gan"), tmp_path):
        cli = command(
            "train", "fit", *SMALL, "--trainer.max_epochs=1", "--trainer.enable_progress_bar=true"
        )
        bar = cli.trainer.progress_bar_callback
        shown = bar.get_metrics(cli.trainer, cli.model)
        assert {"train/generator_loss", "train/discriminator_loss", "val/frechet"} <= shown.keys()
        assert not any(isinstance(value, torch.Tensor) for value in shown.values())


def test_an_evaluation_compiles_only_if_it_is_told_to(render, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    with inside(render(model="mlp"), tmp_path):
        command("train", "fit", "--model.compile=true", *SMALL, "--trainer.max_epochs=1")
        assert len(compiled) == 1
        evaluate("test", "best", *SMALL)
        assert len(compiled) == 1
        evaluate("test", "best", *SMALL, "--model.compile=true")
        assert len(compiled) == 2


def test_a_compiler_that_lacks_is_one_sentence(render, tmp_path, monkeypatch):
    def lacks(self):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor")

    monkeypatch.setattr(nn.Module, "compile", lacks)
    sentence = r"^error: model.compile: No working C\+\+ compiler found; install one, or set "
    with inside(render(model="mlp"), tmp_path), pytest.raises(SystemExit, match=sentence):
        command("train", "fit", "--model.compile=true", *SMALL)


FUSED = [
    ("cnn", "cpu", "auto", "auto", True),
    ("gan", "cpu", "ddp", "auto", True),
    ("cnn", "gpu", "auto", "auto", True),
    ("gan", "gpu", "auto", "16-mixed", True),
    ("cnn", "gpu", "fsdp2", "bf16-mixed", True),
    ("cnn", "mps", "auto", "32-true", True),
    # No such kernel, or none that scales the gradients.
    ("gan", "tpu", "auto", "auto", False),
    ("cnn", "mps", "auto", "16-mixed", False),
    # They make the parameters or the optimizer their own.
    ("cnn", "gpu", "fsdp", "auto", False),
    ("cnn", "gpu", "deepspeed_stage_3_offload", "auto", False),
]


@pytest.mark.parametrize(("model", "accelerator", "strategy", "precision", "fused"), FUSED)
def test_one_kernel_updates_all_weights_where_there_is_one(
    render, model, accelerator, strategy, precision, fused
):
    devices = "auto" if strategy == "auto" else "2"
    answers = {"accelerator": accelerator, "strategy": strategy, "precision": precision}
    project = render(model=model, devices=devices, **answers)
    config = yaml.safe_load((project / "configs" / "model.yaml").read_text("utf-8"))
    optimizer = config["model"]["init_args"]["optimizer"]["init_args"]
    assert optimizer.get("fused", False) == fused


def test_gradients_are_clipped_in_mixed_precision(render, tmp_path):
    with inside(render(model="mlp", accelerator="cpu", precision="bf16-mixed"), tmp_path):
        plain, clipped = (
            command("train", "fit", "--trainer.max_steps=3", *QUIET, *options)
            for options in ((), ("--trainer.gradient_clip_val=1e-6",))
        )
    plain, clipped = (
        cli.trainer.optimizers[0].state_dict()["state"][0] for cli in (plain, clipped)
    )
    assert plain["exp_avg"].norm() > 100 * clipped["exp_avg"].norm()


@pytest.mark.parametrize("model", ["cnn", "gan"])
def test_a_compiled_network_has_the_checkpoints_of_any_other(render, tmp_path, monkeypatch, model):
    # Traced as ever; what the tracer gives is run as it is, since not every machine has a compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.reset()  # what other tests have compiled
    torch._dynamo.utils.counters.clear()
    with inside(render(model=model), tmp_path):
        fit = command("train", "fit", "--model.compile=true", *SMALL, "--trainer.max_epochs=1")
        assert torch._dynamo.utils.counters["frames"]["ok"] > 0
        path = Path(fit.trainer.checkpoint_callback.best_model_path)
        names = torch.load(path, weights_only=True)["state_dict"].keys()
        assert not any("_orig_mod" in name for name in names)
        compiled = evaluate("test", "best", *SMALL, "--model.compile=true")
        monkeypatch.setattr(nn.Module, "compile", lambda self: None)
        assert evaluate("test", "best", *SMALL) == pytest.approx(compiled, rel=1e-4)


def test_the_imports_are_not_searched_for_garbage(render):
    show = "lambda: print(gc.isenabled(), gc.get_freeze_count(), gc.get_stats()[2])"
    script = f"import atexit, gc, runpy, sys; atexit.register({show}); sys.argv[1:] = ['--help']\n"
    script += "runpy.run_path('train.py', run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=render(), capture_output=True, text=True, check=True
    )
    enabled, kept, oldest = result.stdout.splitlines()[-1].split(maxsplit=2)
    assert enabled == "True" and int(kept) > 100_000
    assert ast.literal_eval(oldest)["collections"] == 0


def test_a_spawned_data_worker_needs_no_lightning(render):
    """On macOS and Windows each of them reads train.py, and imports what it is handed."""
    script = "import sys, train, engine.samples, data.image_files; print('lightning' in sys.modules, 'engine.cli' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=render(), capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
