"""A fit that is continued ends with bit for bit the weights of one that was not interrupted."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy
from projects import ONE_CPU, QUIET, command, inside

# Each save stays, as a kill right after it would leave it.
EVERY_EPOCH = ["--last_checkpoint.filename={epoch}", "--last_checkpoint.save_top_k=-1"]
EVERY_7_STEPS = [
    *("--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"),
    "--last_checkpoint.every_n_train_steps=7",
]
# Validates in mid-epoch, right after the save.
EVERY_5_STEPS = [
    *("--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"),
    *("--last_checkpoint.every_n_train_steps=5", "--trainer.val_check_interval=5"),
]
# Each validation that is no better lowers the learning rate.
PLATEAU = [
    "--model.scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau",
    *("--model.scheduler.patience=0", "--model.scheduler.mode=max", "--model.scheduler.factor=0.5"),
]
OPTIONS = [
    *(*ONE_CPU, *QUIET, "--trainer.max_epochs=3", "--trainer.limit_train_batches=10"),
    *("--trainer.limit_val_batches=1", "--data.batch_size=16"),
]


@pytest.mark.parametrize(
    ("model", "saves", "name"),
    [
        ("cnn", EVERY_EPOCH, "epoch=0.ckpt"),
        ("cnn", EVERY_7_STEPS, "step=14.ckpt"),
        ("cnn", EVERY_7_STEPS, "step=21.ckpt"),
        ("cnn", EVERY_5_STEPS, "step=15.ckpt"),
        ("cnn", EVERY_5_STEPS, "step=20.ckpt"),
        ("cnn", [*EVERY_EPOCH, *PLATEAU], "epoch=1.ckpt"),
        ("cnn", [*EVERY_7_STEPS, *PLATEAU], "step=14.ckpt"),
        ("autoencoder", [*EVERY_7_STEPS, *PLATEAU], "step=7.ckpt"),
        ("autoencoder", EVERY_7_STEPS, "step=7.ckpt"),
        ("gan", EVERY_EPOCH, "epoch=1.ckpt"),
    ],
)
def test_is_exact(render, tmp_path, model, saves, name):
    with inside(render(model=model), tmp_path):
        whole = command("train", "fit", *OPTIONS, *saves)
        checkpoint = Path("logs", "version_0", "checkpoints", name)
        # What a kill leaves has no later files beside it.
        left = tmp_path / "killed" / "version_0" / "checkpoints" / name
        left.parent.mkdir(parents=True)
        checkpoint.rename(left)
        continued = command("train", "fit", *OPTIONS, *saves, "--ckpt_path", str(left))
        assert_same(whole, continued)


def assert_same(whole, continued, also_scores=True):
    assert continued.trainer.global_step == whole.trainer.global_step
    states = [cli.model.state_dict() for cli in (whole, continued)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    optimizers = [cli.trainer.optimizers[0].state_dict()["state"] for cli in (whole, continued)]
    for key, moments in optimizers[0].items():
        assert torch.equal(moments["exp_avg"], optimizers[1][key]["exp_avg"])
    schedulers = [
        [config.scheduler.state_dict() for config in cli.trainer.lr_scheduler_configs]
        for cli in (whole, continued)
    ]
    assert schedulers[0] == schedulers[1]
    if not also_scores:  # Lightning validates once more where it stops by itself
        return
    stopping = [cli.trainer.early_stopping_callback.state_dict() for cli in (whole, continued)]
    assert stopping[0] == stopping[1]
    scores = [cli.trainer.checkpoint_callback.best_model_score for cli in (whole, continued)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("signum", "hook", "step", "saved"),
    [
        (signal.SIGINT, "training_step", 3, 4),
        (signal.SIGTERM, "training_step", 13, 14),
        (signal.SIGTERM, "training_step", 9, 10),  # the epoch's last
        (signal.SIGTERM, "validation_step", 10, 10),
    ],
)
def test_a_signal_lets_the_step_end(
    render, tmp_path, monkeypatch, capfd, signum, hook, step, saved
):
    with inside(render(), tmp_path):
        whole = command("train", "fit", *OPTIONS)
        from models.classifier import Classifier

        original, told = getattr(Classifier, hook), []

        def told_to_stop(self, *arguments):
            output = original(self, *arguments)
            if self.global_step == step and not self.trainer.sanity_checking and not told:
                told.append(True)
                os.kill(os.getpid(), signum)
            return output

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, hook, told_to_stop)
            with pytest.raises(SystemExit) as stop:
                command("train", "fit", *OPTIONS)
        assert stop.value.code == 128 + signum
        path = os.path.join("logs", "version_1", "checkpoints", "last.ckpt")
        assert torch.load(path, weights_only=True)["global_step"] == saved
        resume = capfd.readouterr().out.strip().splitlines()[-1].split()
        assert resume[:3] == ["python", "train.py", "fit"]
        assert resume[-2:] == ["--ckpt_path", path]
        assert_same(whole, command("train", *resume[2:]))


def test_data_workers_leave_signals_to_the_fit(render, tmp_path, monkeypatch):
    """A terminal's Ctrl-C and a cluster's signals reach them, too."""
    with inside(render(model="mlp"), tmp_path):
        from models.classifier import Classifier

        original, told = Classifier.training_step, []

        def signal_workers(self, batch, batch_idx):
            if batch_idx == 1 and not told:
                told.append(self.trainer.train_dataloader._iterator)
                for worker in told[0]._workers:
                    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                        os.kill(worker.pid, signum)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(Classifier, "training_step", signal_workers)
        fit = command("train", "fit", *OPTIONS, "--data.num_workers=1", "--trainer.max_epochs=1")
        assert fit.trainer.global_step == 10
    # Else they end 20 s after the signal, in another test.
    [iterator] = told
    iterator._shutdown_workers()
    assert iterator._workers
    assert not any(worker.is_alive() for worker in iterator._workers)


@pytest.mark.parametrize("stop", ["max_steps", "should_stop"])
@pytest.mark.parametrize("model", ["mlp", "gan"])
def test_a_fit_that_stops_in_mid_epoch_goes_on_as_if_it_had_not(
    render, tmp_path, monkeypatch, model, stop
):
    options = [*OPTIONS, "--model.scheduler=null"]
    optimizers = 2 if model == "gan" else 1
    with inside(render(model=model), tmp_path):
        whole = command("train", "fit", *options)
        if stop == "max_steps":
            command("train", "fit", *options, f"--trainer.max_steps={15 * optimizers}")
        else:  # as Lightning's Timer does
            from callbacks.pictures import Pictures

            def end(self, trainer, *_):
                trainer.should_stop = trainer.global_step == 15 * optimizers

            with monkeypatch.context() as patch:
                patch.setattr(Pictures, "on_train_batch_end", end)
                command("train", "fit", *options)
        path = "logs/version_1/checkpoints/last.ckpt"
        assert torch.load(path, weights_only=True)["global_step"] == 15 * optimizers
        continued = command("train", "fit", *options, "--ckpt_path", path)
        assert_same(whole, continued, also_scores=stop == "max_steps")


CHANGES = """
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn

from models.classifier import Classifier
from models.networks.mlp import MLP

class Thaw(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.network.backbone)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network.backbone, optimizer)

class ThawPlainly(Callback):
    def on_fit_start(self, trainer, pl_module):
        pl_module.network.backbone.requires_grad_(False)

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pl_module.network.backbone.requires_grad_(True)

class Grow(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.datamodule.batch_size *= 2

class Memory(MLP):
    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__(image_shape, num_classes)
        self.register_buffer("seen", torch.zeros(0, num_classes))

    def forward(self, images):
        logits = super().forward(images)
        if self.training:
            self.seen = torch.cat([self.seen, logits.detach().mean(0, keepdim=True)])
        return logits - self.seen.sum(0)

class Late(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.weight_of_it = float(trainer.current_epoch > 0)

class Own(Classifier):
    weight_of_it = 0.0

    def on_fit_start(self):
        self.weight_of_it = 0.0

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return [optimizer], [{"scheduler": plateau, "monitor": "val/acc"}]

class Loose(MLP):
    def __init__(self, image_shape: tuple[int, int, int], num_classes: int):
        super().__init__(image_shape, num_classes)
        self.scale, self.center, self.fixed = 1.0, torch.zeros(1), 3

    def forward(self, images):
        if self.training:
            self.scale *= 1.5
            self.center += 1
        return super().forward(images)
"""


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.callbacks+=changes.Thaw"],
        ["--trainer.callbacks+=changes.ThawPlainly"],
        ["--trainer.callbacks+=changes.Grow", "--trainer.reload_dataloaders_every_n_epochs=1"],
        [
            *("--trainer.callbacks+=changes.Grow", "--data.batch_size=auto"),
            "--trainer.reload_dataloaders_every_n_epochs=1",
        ],
        ["--model.network=changes.Memory"],
    ],
    ids=["finetuning", "callback", "batch size", "batch size that was auto", "buffer"],
)
def test_what_changes_in_a_fit_is_as_it_was(render, tmp_path, monkeypatch, recwarn, options):
    """What is trained, how large batches are, and a buffer that grows."""
    (tmp_path / "changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(tmp_path)
    with inside(render(model="mlp"), tmp_path):
        options = [*OPTIONS, "--model.scheduler=null", *options]
        whole = command("train", "fit", *options)
        command("train", "fit", *options, "--trainer.max_steps=15")
        continued = command("train", "fit", *options, "--ckpt_path=last")
        assert_same(whole, continued, also_scores=False)
        command("train", "test", *options, "--ckpt_path=last")
    assert "which no checkpoint holds" not in str([str(one.message) for one in recwarn])


def test_what_no_checkpoint_holds_is_named(render, tmp_path, monkeypatch):
    (tmp_path / "changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(tmp_path)
    with inside(render(model="mlp"), tmp_path):
        with pytest.warns(
            UserWarning, match=r"changes Loose.scale, Loose.center, which no .*buffer"
        ):
            command("train", "fit", *OPTIONS, "--model.network=changes.Loose")
        with pytest.warns(UserWarning, match="changes Own.weight_of_it, which no .*buffer"):
            late = ["--model=changes.Own", "--model.network=models.networks.mlp.MLP"]
            command("train", "fit", *OPTIONS, *late, "--trainer.callbacks+=changes.Late")
        last = torch.load("logs/version_1/checkpoints/last.ckpt", weights_only=True)
        assert last["lr_schedulers"][0]["last_epoch"] == last["epoch"] + 1 == 3


@pytest.mark.parametrize("size", [8, 32])
def test_in_mid_epoch_the_rest_comes_in_batches_of_another_size(render, tmp_path, size):
    with inside(render(model="mlp"), tmp_path):
        from engine.exact_resume import ExactResume

        options = [*ONE_CPU, *QUIET, "--data.val_fraction=0.844", "--trainer.max_epochs=1"]
        first = command("train", "fit", *options, "--data.batch_size=16", "--trainer.max_steps=8")
        seen = []
        ExactResume.on_train_batch_end = lambda self, t, s, out, batch, i: seen.append(batch[0])
        fit = command("train", "fit", *options, f"--data.batch_size={size}", "--ckpt_path=last")
        left = len(first.datamodule.splits["train"]) // size - 8 * 16 // size  # batches
        assert [len(images) for images in seen] == [size] * left
        [config] = fit.trainer.lr_scheduler_configs
        steps = 8 + left
        assert fit.trainer.global_step == steps == config.scheduler.total_steps


def test_a_signal_waits_for_gradients_that_add_up(render, tmp_path, monkeypatch):
    accumulates = "--trainer.accumulate_grad_batches=4"
    with inside(render(), tmp_path):
        whole = command("train", "fit", *OPTIONS, accumulates)
        from models.classifier import Classifier

        original = Classifier.training_step

        def told_to_stop(self, batch, batch_idx):
            if batch_idx == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", told_to_stop)
            with pytest.raises(SystemExit):
                command("train", "fit", *OPTIONS, accumulates)
        path = "logs/version_1/checkpoints/last.ckpt"
        assert torch.load(path, weights_only=True)["global_step"] == 1
        assert_same(whole, command("train", "fit", *OPTIONS, accumulates, "--ckpt_path", path))


def test_a_second_signal_and_an_error_leave_the_last_save(render, tmp_path, monkeypatch, capfd):
    with inside(render(), tmp_path):
        from models.classifier import Classifier

        original = Classifier.training_step

        def fails(self, *arguments):
            if self.global_step == 15:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, *arguments)

        monkeypatch.setattr(Classifier, "training_step", fails)
        with pytest.raises(SystemExit):
            command("train", "fit", *OPTIONS)
        path = Path("logs", "version_0", "checkpoints", "last.ckpt")
        assert torch.load(path, weights_only=True)["global_step"] == 10
        assert f"--ckpt_path {path}" in capfd.readouterr().out
        for given in (["--ckpt_path", "last"], ["--ckpt_path=last"]):
            with pytest.raises(SystemExit):
                command("train", "fit", *OPTIONS, *given)
            [line] = [s for s in capfd.readouterr().out.splitlines() if "--ckpt_path" in s]
            assert line.split("--ckpt_path")[1:] == [f" {path}"], "it is said once"


def test_a_save_at_an_epochs_last_step_has_its_validation(render, tmp_path):
    saves = ["--last_checkpoint.every_n_train_steps=10"]
    with inside(render(), tmp_path):
        command("train", "fit", *OPTIONS, *saves, "--trainer.max_epochs=1")
        last = torch.load("logs/version_0/checkpoints/last.ckpt", weights_only=True)
        assert last["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]["current"]["ready"]


def test_a_run_that_was_moved_goes_on_with_its_best_score(render, tmp_path, recwarn, caplog):
    """By another metric it does not; what else is otherwise is said."""
    with inside(render(), tmp_path):
        looks_at = ["--early_stopping.monitor=val/loss", "--early_stopping.mode=min"]
        command("train", "fit", *OPTIONS, *looks_at, "--trainer.max_epochs=2")
        Path("logs", "version_0").rename("moved")
        best = torch.load("moved/checkpoints/best.ckpt", weights_only=True)
        # A score that the third epoch does not reach.
        last = torch.load("moved/checkpoints/last.ckpt", weights_only=True)
        [state] = [s for k, s in last["callbacks"].items() if k.startswith("BestCheckpoint")]
        state["best_model_score"] = state["kth_value"] = torch.tensor(-1.0)
        state["best_k_models"] = {state["best_model_path"]: torch.tensor(-1.0)}
        torch.save(last, "moved/checkpoints/last.ckpt")
        fit = command("train", "fit", *OPTIONS, "--ckpt_path=moved")
        assert fit.trainer.checkpoint_callback.best_model_score == -1
        kept = torch.load("moved/checkpoints/best.ckpt", weights_only=True)
        assert kept["global_step"] == best["global_step"]
        assert not [w for w in recwarn if "dirpath" in str(w.message)]
        assert fit.trainer.early_stopping_callback.monitor == "val/loss"
        more = [*OPTIONS, "--ckpt_path=moved", "--trainer.max_epochs=4"]
        other = ["--best_checkpoint.monitor=val/acc", "--best_checkpoint.mode=max"]
        with pytest.raises(SystemExit, match="best.ckpt is not the best by val/acc"):
            command("train", "fit", *more, *other)
        other = ["--trainer.accumulate_grad_batches=2", "--model.scheduler=null"]
        fit = command("train", "fit", *more, *other)
        assert fit.trainer.checkpoint_callback.best_model_score == -1
        assert (
            "not as in the checkpoint: trainer.accumulate_grad_batches=2 (there 1)" in caplog.text
        )
        assert "not in the configuration: model.scheduler=models.warmup_cosine" in caplog.text


def test_a_fit_that_goes_on_keeps_as_many_of_the_best_as_it_is_asked_for(render, tmp_path):
    with inside(render(), tmp_path):
        scores: dict[str, float] = {}
        for epochs, count in ((2, 3), (4, 1), (6, 2)):
            keeps = ["--best_checkpoint.filename={epoch}", f"--best_checkpoint.save_top_k={count}"]
            more = [f"--trainer.max_epochs={epochs}", *(["--ckpt_path=last"] if epochs > 2 else [])]
            fit = command("train", "fit", *OPTIONS, *keeps, *more)
            kept = fit.trainer.checkpoint_callback.best_k_models
            assert len(kept) == min(count, 2)
            scores |= {path: score.item() for path, score in kept.items()}
            assert Path(fit.trainer.checkpoint_callback.best_model_path).is_file()
            assert min(scores.values()) == fit.trainer.checkpoint_callback.best_model_score


def test_two_fits_do_not_go_on_in_one_run(render, tmp_path, monkeypatch):
    """The other one is named; when it has died, its lock is gone."""
    project = render()
    monkeypatch.setenv("PYTHONPATH", str(project))
    with inside(project, tmp_path):
        command("train", "fit", *OPTIONS, "--trainer.max_epochs=1")
        code = "from pathlib import Path; from engine.runs import hold; "
        code += "lock = hold(Path('logs/version_0')); print('held', flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        other = subprocess.Popen([sys.executable, "-c", code], **pipes)
        other.stdout.readline()
        rows = Path("logs/version_0/run.yaml").read_text()
        with pytest.raises(
            SystemExit, match=rf"^error: A fit is running .*process {other.pid} on "
        ):
            command("train", "fit", *OPTIONS, "--ckpt_path=last")
        assert Path("logs/version_0/run.yaml").read_text() == rows
        other.kill()
        other.wait()
        fit = command("train", "fit", *OPTIONS, "--ckpt_path=last")
        assert fit.trainer.current_epoch == 3


def test_a_checkpoint_from_elsewhere_goes_on_in_a_new_run(render, tmp_path, recwarn):
    with inside(render(), tmp_path):
        command("train", "fit", *OPTIONS, "--trainer.max_epochs=1")
        Path("logs", "version_0", "checkpoints", "last.ckpt").rename("from_a_colleague.ckpt")
        fit = command("train", "fit", *OPTIONS, "--ckpt_path=from_a_colleague.ckpt")
        assert fit.trainer.current_epoch == 3
        assert {path.name for path in Path().iterdir()} == {"logs", "from_a_colleague.ckpt"}
        assert Path("logs", "version_1", "checkpoints", "best.ckpt").is_file()
        assert not [w for w in recwarn if "dirpath" in str(w.message)]
        Path("checkpoints").mkdir()  # not of a run
        Path("from_a_colleague.ckpt").rename("checkpoints/good.ckpt")
        command("train", "fit", *OPTIONS, "--ckpt_path=checkpoints/good.ckpt")
        assert {path.name for path in Path().iterdir()} == {"logs", "checkpoints"}
        assert Path("logs", "version_2", "checkpoints", "best.ckpt").is_file()


def test_saves_after_steps_do_not_replace_those_of_epochs(render, tmp_path):
    with inside(render(), tmp_path):
        command("train", "fit", *OPTIONS, "--last_checkpoint.every_n_train_steps=7")
        last = torch.load("logs/version_0/checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == 30


@pytest.mark.parametrize(
    ("model", "options", "steps"),
    [
        ("mlp", ["--last_checkpoint.every_n_train_steps=8"], [30]),  # the newest save only
        ("mlp", ["--last_checkpoint.every_n_epochs=2", "--last_checkpoint.save_top_k=-1"], [20]),
        ("mlp", ["--last_checkpoint.save_top_k=0"], []),
        # Two optimizers make two steps in a batch, and none ends with a multiple of seven.
        (
            "gan",
            [
                *("--last_checkpoint.every_n_train_steps=7", "--last_checkpoint.save_top_k=-1"),
                *("--last_checkpoint.every_n_epochs=0", "--trainer.max_epochs=1"),
            ],
            [8, 14],
        ),
    ],
)
def test_saves_come_when_they_are_due(render, tmp_path, model, options, steps):
    with inside(render(model=model), tmp_path):
        command("train", "fit", *OPTIONS, "--last_checkpoint.filename={step}", *options)
        saved = Path("logs", "version_0", "checkpoints").glob("step=*.ckpt")
        assert {path.name for path in saved} == {f"step={step}.ckpt" for step in steps}


def test_a_stop_that_has_to_wait_does_not_save_each_step(render, tmp_path, monkeypatch):
    with inside(render(model="mlp"), tmp_path):
        from engine.exact_resume import ExactResume

        def stop(self, trainer, *_):
            trainer.should_stop = True

        monkeypatch.setattr(ExactResume, "on_train_batch_end", stop)
        saves = ["--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"]
        command("train", "fit", *OPTIONS, *saves, "--trainer.min_epochs=2")
        saved = Path("logs", "version_0", "checkpoints").glob("step=*.ckpt")
        assert {path.name for path in saved} == {"step=10.ckpt", "step=20.ckpt"}


def test_a_stop_at_a_validation_keeps_what_it_logged(render, tmp_path, monkeypatch):
    options = [*OPTIONS, "--trainer.max_epochs=1", "--trainer.val_check_interval=3"]
    options += ["--trainer.limit_train_batches=7", "--trainer.log_every_n_steps=1"]
    options += ["--trainer.logger=lightning.pytorch.loggers.CSVLogger"]
    options += ["--trainer.logger.save_dir=logs"]

    def logged(run: str) -> list[list[str]]:
        with Path("logs", run, "metrics.csv").open(newline="") as file:
            return [*csv.reader(file)]

    with inside(render(model="mlp"), tmp_path):
        command("train", "fit", *options)
        from engine.last_checkpoint import LastCheckpoint

        with monkeypatch.context() as patch:

            def stop(self, trainer, pl_module):
                if trainer.global_step == 3:
                    self.receive(signal.SIGTERM, None)

            patch.setattr(LastCheckpoint, "on_validation_start", stop)
            with pytest.raises(SystemExit):
                command("train", "fit", *options)
        command("train", "fit", *options, "--ckpt_path=last")
        assert sorted(logged("version_1")) == sorted(logged("version_0"))


def test_a_save_is_atomic(render, tmp_path, monkeypatch):
    with inside(render(), tmp_path):
        from engine.checkpoint_io import AtomicCheckpointIO
        from engine.trainer_settings import save_whole

        for strategy in (SingleDeviceStrategy(), DDPStrategy(), FSDPStrategy()):
            save_whole(strategy)
            assert type(strategy.checkpoint_io) is AtomicCheckpointIO

        path = tmp_path / "checkpoints" / "last.ckpt"
        AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

        def killed(checkpoint, file):
            file.write(b"half of a")
            raise KeyboardInterrupt

        monkeypatch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
        assert torch.load(path, weights_only=True) == {"step": 1}
        assert list(path.parent.iterdir()) == [path]


def test_patience_and_length_of_the_schedule_are_as_given(render, tmp_path, caplog):
    with inside(render(model="mlp"), tmp_path):
        one_cycle = "torch.optim.lr_scheduler.OneCycleLR"
        schedule = [f"--model.scheduler={one_cycle}", "--model.scheduler.max_lr=0.01"]
        schedule += ["--model.scheduler_interval=step"]
        stop = ["--early_stopping.patience=1", "--early_stopping.min_delta=1"]
        total = "--model.scheduler.total_steps"
        first = command("train", "fit", *OPTIONS, *schedule, f"{total}=30", *stop)
        assert first.trainer.current_epoch < 3
        options = [*OPTIONS, "--ckpt_path=last", *schedule, "--early_stopping.min_delta=1"]
        with pytest.raises(SystemExit, match="total_steps is 30, but this fit has 50 steps"):
            command("train", "fit", *options, "--trainer.max_epochs=5")
        longer = [f"{total}=50", "--trainer.max_epochs=5"]
        on = command("train", "fit", *options, *longer, "--early_stopping.patience=100")
        assert "early_stopping.patience=100 (there 1)" in caplog.text
        assert on.trainer.current_epoch == 5
        assert on.trainer.early_stopping_callback.patience == 100
        command("train", "fit", *options, *longer)  # there is nothing left to do
        first, *_, second, third = yaml.safe_load(
            Path("logs/version_0/run.yaml").read_text("utf-8")
        )
        assert "early, after epoch 1: Monitored metric val/brier" in first["result"]["ended"]
        assert second["result"]["ended"] == "after 5 of 5 epochs, 50 steps"
        assert third["result"]["ended"].startswith("before its first step: 5 epochs, 50 steps")
        files = sorted(Path("logs/version_0").glob("*.yaml"))
        with pytest.raises(SystemExit, match="current_epoch=4, but you have set"):
            command("train", "fit", *options, f"{total}=20", "--trainer.max_epochs=2")
        # A fit that never began leaves the run as it was.
        assert sorted(Path("logs/version_0").glob("*.yaml")) == files
        assert yaml.safe_load(Path("logs/version_0/run.yaml").read_text("utf-8"))[-1] == third
        for option, reason in {
            "max_time=00:00:00:00": "max_time",
            "limit_train_batches=0": "is 0",
        }.items():
            command("train", "fit", *options, "--trainer.max_epochs=6", f"--trainer.{option}")
            end = yaml.safe_load(Path("logs/version_0/run.yaml").read_text("utf-8"))[-1]["result"]
            assert reason in end["ended"]
        [config] = on.trainer.lr_scheduler_configs
        whole = torch.optim.lr_scheduler.OneCycleLR(
            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1), 0.01, total_steps=50
        )
        assert config.scheduler.total_steps == 50
        while whole.last_epoch < config.scheduler.last_epoch:
            whole.optimizer.step()
            whole.step()
        assert config.scheduler.get_last_lr() == pytest.approx(whole.get_last_lr() * 2)


OWN_SCHEDULE = """
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from models.classifier import Classifier


class Own(Classifier):
    def configure_optimizers(self):
        optimizer = SGD(self.parameters(), lr=0.1)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, 0.1, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]
"""


def test_a_system_may_ask_for_the_length_of_the_fit_first(render, tmp_path, monkeypatch):
    """So Lightning makes the loaders before it knows at which sample the fit stopped."""
    monkeypatch.syspath_prepend(tmp_path)
    Path(tmp_path, "own_schedule.py").write_text(OWN_SCHEDULE)
    with inside(render(model="mlp"), tmp_path):
        own = ["--model=own_schedule.Own", "--model.network=models.networks.mlp.MLP"]
        options = [*own, *OPTIONS, *EVERY_7_STEPS]
        whole = command("train", "fit", *options).model.state_dict()
        saved = "logs/version_0/checkpoints/step=14.ckpt"
        continued = command("train", "fit", *options, f"--ckpt_path={saved}").model.state_dict()
        assert all(torch.equal(value, continued[name]) for name, value in whole.items())
