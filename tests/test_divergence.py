"""A fit whose weights are no numbers any more ends, and says so."""

from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
import yaml
from lightning.pytorch import LightningModule
from projects import ONE_CPU, QUIET, command, inside

OPTIONS = [*ONE_CPU, *QUIET, "--pictures.every_n_epochs=0", "--trainer.log_every_n_steps=5"]


def finite(path) -> bool:
    state = torch.load(path, weights_only=True)["state_dict"]
    return all(bool(tensor.isfinite().all()) for tensor in state.values())


@pytest.mark.parametrize("model", ["mlp", "gan"])
def test_stops_within_the_logging_interval_and_keeps_what_has_numbers(
    render, tmp_path, monkeypatch, model
):
    with inside(render(model=model), tmp_path):
        from models.system import System

        steps = []

        def poison(self, batch, batch_idx):
            steps.append(batch_idx)
            if self.trainer.current_epoch == 1 and batch_idx == 6:
                with torch.no_grad():
                    next(self.network.parameters()).mul_(torch.nan)

        monkeypatch.setattr(System, "on_train_batch_start", poison)
        with pytest.raises(SystemExit) as stop:
            command("train", "fit", *OPTIONS, "--trainer.max_epochs=3")
        before = steps.index(19) + 1  # steps of the first epoch
        assert f"the loss is nan since step {before + 6}, and was " in stop.value.code
        assert len(steps) <= before + 6 + 5
        assert "--config configs/debug/anomaly.yaml" in stop.value.code
        checkpoints = sorted(Path("logs/version_0/checkpoints").glob("*.ckpt"))
        assert [path.name for path in checkpoints] == ["best.ckpt", "last.ckpt"]
        assert all(map(finite, checkpoints))


def test_a_save_in_mid_interval_is_looked_at(render, tmp_path):
    with inside(render(model="autoencoder"), tmp_path):
        options = ["--model.lr=1e30", "--trainer.log_every_n_steps=50"]
        with pytest.raises(SystemExit, match="The fit has diverged"):
            command("train", "fit", *OPTIONS, *options, "--last_checkpoint.every_n_train_steps=3")
        assert all(map(finite, Path("logs").rglob("*.ckpt")))


@pytest.mark.parametrize(
    ("kind", "validations"), [("parameters", 0), ("parameters", 1), ("buffers", 1)]
)
def test_the_last_step_of_an_epoch_may_spoil_the_weights(
    render, tmp_path, monkeypatch, kind, validations
):
    with inside(render(model="mlp"), tmp_path):
        from models.system import System

        def poison(self, *args):
            spoilt = [one for one in getattr(self.network, kind)() if one.is_floating_point()]
            with torch.no_grad():
                spoilt[0].fill_(torch.nan)

        monkeypatch.setattr(System, "on_train_batch_end", poison)
        options = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
        options += [f"--trainer.limit_val_batches={validations}"]
        with pytest.raises(SystemExit, match="diverged|as weights or statistics of batch norm are"):
            command("train", "fit", *OPTIONS, *options)
        assert not [*Path("logs").rglob("*.ckpt")]


def test_a_score_that_is_no_number_is_not_the_best(render, tmp_path, monkeypatch):
    with inside(render(model="mlp"), tmp_path):
        from models.system import System

        add = System.add_to_mean

        def divide(self, name, total, count):
            add(self, name, total / 0 if name == "brier" else total, count)

        monkeypatch.setattr(System, "add_to_mean", divide)
        with pytest.raises(SystemExit, match="val/brier is inf in epoch 0, though the weights"):
            command("train", "fit", *OPTIONS, "--trainer.max_epochs=3")
        assert not list(Path("logs").rglob("best.ckpt"))


def test_a_trial_that_diverges_is_not_the_best_of_a_sweep(render, tmp_path):
    with inside(render(model="autoencoder"), tmp_path):
        rates = {"type": "categorical", "choices": [1e30, 0.001]}
        settings = {"trainer.max_epochs": 1, "trainer.limit_train_batches": 5}
        settings |= {"trainer.devices": 1, "trainer.accelerator": "cpu"}
        Path("mine.yaml").write_text(
            yaml.safe_dump({"space": {"model.lr": rates}, "settings": settings})
        )
        command("sweep", "--config=mine.yaml", "--trials=4", "--study=wild")
        study = optuna.load_study(study_name="wild", storage="sqlite:///logs/sweeps.db")
        states = {trial.params["model.lr"]: trial.state.name for trial in study.trials}
        assert states == {1e30: "PRUNED", 0.001: "COMPLETE"}
        assert "lr: 0.001" in Path("logs/wild/best.yaml").read_text()


def test_an_eps_that_float16_does_not_know_is_refused(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        half = ["train", "fit", *OPTIONS, "--trainer.max_steps=1", "--trainer.precision=16-true"]
        with pytest.raises(SystemExit, match="eps of 1e-08 is 0 in float16.*optimizer.eps 1e-4"):
            command(*half)
        command(*half, "--model.optimizer.eps=1e-4")
        command(*half, "--model.optimizer=torch.optim.SGD")
        command(*half[:-1], "--model.optimizer=torch.optim.Adafactor")  # its eps are two


def test_manual_optimization_needs_give_no_loss(render):
    with inside(render()):
        from engine.divergence import Divergence

        system = LightningModule()
        system.automatic_optimization = False
        system.layer = torch.nn.Linear(2, 1)
        Divergence().look(SimpleNamespace(), system)
        torch.nn.init.constant_(system.layer.bias, torch.nan)
        with pytest.raises(ValueError, match="weights are nan or infinite"):
            Divergence().look(SimpleNamespace(), system)
