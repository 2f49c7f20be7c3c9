"""What all systems share: parameter groups, schedules, losses, weights of classes, several loaders."""

import itertools
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from projects import SMALL, command, inside
from templates import ROOT
from torchmetrics.classification import MulticlassCalibrationError

FIT = ["fit", *SMALL, "--trainer.max_epochs=2"]
TOTAL = "--model.scheduler.total_steps=4"
SCHEDULES = "--model.scheduler=torch.optim.lr_scheduler."


def test_weight_decay_spares_norms_and_biases_unless_told_otherwise(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        fit = command("train", "fit", *SMALL, "--trainer.max_steps=1")
        decayed, others = fit.trainer.optimizers[0].param_groups
        assert decayed["weight_decay"] > 0 == others["weight_decay"]
        assert {p.ndim for p in decayed["params"]} == {2}
        assert {p.ndim for p in others["params"]} == {1}
        counted = len(decayed["params"]) + len(others["params"])
        assert counted == len(list(fit.model.parameters()))
        fit = command("train", "fit", *SMALL, "--trainer.max_steps=1", "--model.decay_all=true")
        assert len(fit.trainer.optimizers[0].param_groups) == 1
        # No shape says what its weights are.
        fit.model.network = torch.nn.Sequential(torch.nn.LazyLinear(10), torch.nn.LazyBatchNorm1d())
        fit.model.decay_all = False
        fit.model.setup("test")
        with pytest.raises(
            MisconfigurationException, match="network.0.weight has none yet: run the"
        ):
            fit.model.configure_optimizers()
        made = torch.nn.Sequential(torch.nn.Linear(3, 10), torch.nn.BatchNorm1d(10))
        state = {f"network.{name}": value for name, value in made.state_dict().items()}
        fit.model.on_load_checkpoint({"state_dict": state})
        fit.model.load_state_dict(state)
        assert fit.model.network[1].running_mean.shape == (10,)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        (["OneCycleLR", "--model.scheduler.max_lr=0.01"], {"total_steps": 4}),
        (["OneCycleLR", "--model.scheduler.max_lr=0.01", TOTAL], {"total_steps": 4}),
        (["CosineAnnealingLR"], {"T_max": 4}),
        (["CosineAnnealingLR", "--model.scheduler_interval=epoch"], {"T_max": 2}),
    ],
    ids=["one cycle", "one cycle as given", "cosine", "cosine by epoch"],
)
def test_a_schedule_gets_the_length_of_the_fit_and_goes_on(render, tmp_path, options, length):
    name, *rest = options
    given = [f"{SCHEDULES}{name}", *rest, "--last_checkpoint.save_top_k=-1"]
    given.append("--last_checkpoint.filename={epoch}")
    with inside(render(model="mlp"), tmp_path):
        whole = command("train", *FIT, *given)
        scheduler = whole.trainer.lr_scheduler_configs[0].scheduler
        assert {key: getattr(scheduler, key) for key in length} == length
        assert scheduler.last_epoch == max(length.values())
        first = Path("logs/version_0/checkpoints/epoch=0.ckpt")
        continued = command("train", *FIT, *given, f"--ckpt_path={first}")
        weights = continued.model.state_dict()
        assert all(torch.equal(w, weights[n]) for n, w in whole.model.state_dict().items())
        from engine.predictor import load_system

        assert load_system(first).scheduler is not None  # as for `load` and export.py


@pytest.mark.parametrize(
    ("other", "steps"), [("limit_train_batches=3", 10), ("accumulate_grad_batches=2", 6)]
)
def test_a_schedule_ends_with_a_fit_whose_epochs_have_become_longer_or_shorter(
    render, tmp_path, other, steps
):
    cosine = f"{SCHEDULES}CosineAnnealingLR"
    with inside(render(model="mlp"), tmp_path):
        command("train", *FIT, cosine)
        options = [cosine, f"--trainer.{other}", "--trainer.max_epochs=4", "--ckpt_path=last"]
        trainer = command("train", *FIT, *options).trainer
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        assert trainer.global_step == scheduler.T_max == scheduler.last_epoch == steps
        assert scheduler.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_a_schedule_that_cannot_know_the_length_of_the_fit_says_so(render, tmp_path, caplog):
    caplog.set_level("INFO")
    with inside(render(model="mlp"), tmp_path):
        import models.warmup_cosine
        from engine import schedules

        optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 0.1)
        scheduler, name, length = schedules.make_scheduler(
            models.warmup_cosine.WarmupCosine, optimizer
        )
        schedules.resize(scheduler, models.warmup_cosine.WarmupCosine, name, float("inf"))
    assert (name, length) == ("total_steps", None)
    assert (
        "WarmupCosine does not lower the learning rate at its end: give trainer.max" in caplog.text
    )


def test_balanced_class_weights_follow_from_the_training_samples_and_stay(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        fit = command("train", *FIT, "--model.class_weights=balanced")
        split = fit.datamodule.splits["train"]
        counts = split.dataset.labels[split.indices].bincount()
        right = counts.sum() / 10 / counts
        torch.testing.assert_close(fit.model.criterion.weight, right)
        tested = command("train", "test", *SMALL, "--ckpt_path=best")
        torch.testing.assert_close(tested.model.criterion.weight, right)
        batches = [*itertools.islice(tested.datamodule.test_dataloader(), 2)]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        with torch.no_grad():  # of all samples at once, not the mean of the batches' means
            logits = tested.model.eval()(images.float() / 127.5 - 1)
        expected = torch.nn.functional.cross_entropy(logits, labels, right)
        assert tested.trainer.callback_metrics["test/loss"] == pytest.approx(
            expected.item(), rel=1e-5
        )


def test_a_hook_that_leaves_out_its_base_is_refused(render):
    with inside(render()):
        from data.digits import Digits
        from engine.trainer_settings import check_hooks
        from models.system import System

        class Noisy(System):
            def on_train_epoch_end(self):
                super().on_train_epoch_end()
                self.log("noise", 1.0)

            def validation_step(self, batch, batch_idx):
                self.log("val/loss", 0.0)

            def on_validation_epoch_end(self):
                """The means are its own."""

        class Started(Noisy):
            def on_train_start(self):
                self.started = True

        class Split(Digits):
            def setup(self, stage):
                self.splits = {}

        check_hooks(Noisy(torch.nn.Identity()))
        for made, hook in ((Started(torch.nn.Identity()), "on_train_start"), (Split(), "setup")):
            with pytest.raises(ValueError, match=rf"call super\(\)\.{hook}\("):
                check_hooks(made)


def test_a_loss_of_torchs_is_named_by_its_class(render, tmp_path):
    with inside(render(model="autoencoder"), tmp_path):
        command("train", *FIT, "--model.loss=torch.nn.L1Loss")
        cli = command("train", "test", *SMALL, "--ckpt_path=best")
        assert type(cli.model.criterion) is torch.nn.L1Loss
        loader = cli.datamodule.test_dataloader()
        batches = [batch for batch, _ in zip(loader, range(2), strict=False)]
        images = torch.cat([images for images, _ in batches]).float() / 127.5 - 1
        with torch.no_grad():
            right = (cli.model.eval()(images) - images).abs().mean()
        found = cli.trainer.callback_metrics["test/loss"]
        torch.testing.assert_close(found, right, atol=1e-5, rtol=1e-4)


def test_a_loss_that_takes_no_weights_refuses_them(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        options = ["--model.loss=torch.nn.MultiLabelMarginLoss", "--model.class_weights=[1, 2]"]
        with pytest.raises(SystemExit, match="class_weights: MultiLabelMarginLoss has no"):
            command("train", *FIT, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["torch.nn.CrossEntropyLoss", "--model.loss.reduction=sum"], "reduction must be mean"),
        (["torch.nn.MSELoss"], "MSELoss does not take logits of 10 classes and indices"),
        (["torch.nn.NLLLoss"], "NLLLoss does not take logits of 10 classes and indices"),
    ],
)
def test_what_a_loss_cannot_do_is_refused(render, tmp_path, options, message):
    with inside(render(model="mlp"), tmp_path), pytest.raises(SystemExit, match=message):
        command("train", *FIT, f"--model.loss={options[0]}", *options[1:])


def test_the_loss_may_be_another(render, tmp_path):
    smoothed = ["torch.nn.CrossEntropyLoss", "--model.loss.label_smoothing=0.4"]
    with inside(render(model="mlp"), tmp_path):
        cli = command("train", *FIT, f"--model.loss={smoothed[0]}", smoothed[1])
        logits, labels = torch.randn(5, 10), torch.arange(5)
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.4)
        assert cli.model.criterion(logits, labels) == expected


def test_a_mean_is_over_samples_whatever_a_batch_begins_with(render):
    with inside(render(model="mlp")):
        from models.system import System

        batch = {"name": ["a", "longer"], "scale": torch.tensor(1.0), "parts": [torch.ones(2, 3)]}
        system = System(torch.nn.Identity())
        assert system.size_of(batch) == 2
        # Images of 3 channels and boxes, both in lists; an object.
        listed = [torch.ones(3, 4, 4)] * 2, [{"boxes": torch.ones(count, 4)} for count in (5, 0)]
        graphs = {"nodes": torch.ones(9, 4), "edges": torch.ones(2, 20), "target": torch.ones(3)}
        for unclear in (listed, graphs, SimpleNamespace(x=torch.ones(2))):
            with pytest.raises(MisconfigurationException, match="Have System.size_of say it"):
                system.size_of(unclear)


def test_a_network_that_is_none_is_refused_with_the_reason(render, tmp_path, monkeypatch):
    (tmp_path / "untyped.py").write_text(
        "from models.classifier import Classifier\n"
        "class Untyped(Classifier):\n"
        "    def __init__(self, network, **kwargs):\n"
        "        super().__init__(network, **kwargs)\n"
    )
    with inside(render(model="mlp"), tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
        options = ["--model=untyped.Untyped", "--model.network=models.networks.mlp.MLP"]
        with pytest.raises(SystemExit, match="Untyped.__init__ .* `network: nn.Module`"):
            command("train", *FIT, *options)


def test_labels_that_are_floats_are_refused(render):
    with inside(render(model="mlp")):
        from models.classifier import Classifier

        system = Classifier(torch.nn.Flatten()).train()
        with pytest.raises(MisconfigurationException, match="labels are floats"):
            system.loss((torch.randn(4, 3), torch.rand(4)))
        # Of samples that have several classes.
        with pytest.raises(MisconfigurationException, match="labels are floats"):
            system.eval().loss((torch.randn(4, 3), torch.ones(4, 3)))


def test_a_training_batch_may_be_mixed(render, tmp_path, monkeypatch):
    """MixUp and CutMix give probabilities in the place of classes."""
    (tmp_path / "mixing.py").write_text(
        "from data.digits import Digits\n"
        "from torchvision.transforms.v2 import CutMix\n"
        "class Mixing(Digits):\n"
        "    def augment(self, batch):\n"
        "        return CutMix(num_classes=10)(*batch)\n"
    )
    with inside(render(model="mlp"), tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
        fit = command(
            "train", *FIT, "--data=mixing.Mixing", "--model.loss=torch.nn.CrossEntropyLoss"
        )
        images, labels = fit.datamodule.augment(next(iter(fit.datamodule.train_dataloader())))
        assert labels.shape == (len(images), 10)
        batch = fit.datamodule.preparation()((images, labels))
        system = fit.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = system.loss(batch)
            torch.manual_seed(0)
            expected = -(labels * system.network(batch[0]).log_softmax(dim=1)).sum(dim=1).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert "val/acc" in fit.trainer.callback_metrics  # of the classes that are not mixed


def test_a_prediction_is_the_class_of_the_largest_logit_in_any_precision(render):
    """Rounded to bfloat16 the probabilities of the last two are the same."""
    with inside(render(model="mlp")):
        from models.classifier import Classifier

        logits = torch.tensor([[0.0] * 8 + [0.25, 0.251]]).bfloat16()
        found = Classifier(torch.nn.Identity()).predict_step((logits, None))
        assert found["prediction"] == logits.argmax() == 9
        assert found["probability"].sum() == pytest.approx(1, abs=1e-6)


def test_inputs_and_outputs_may_be_nested_in_any_precision(render):
    class Two(torch.nn.Linear):
        def forward(self, batch):
            found = super().forward(batch["x"])
            return {"a": found, "both": (found, [found])}

    with inside(render()):
        from models.system import System

        network = Two(3, 2).bfloat16()
        network._parameters = {
            "phase": torch.nn.Parameter(torch.ones(1) + 1j),
            **network._parameters,
        }
        found = System(network)({"x": torch.ones(4, 3, dtype=torch.float64)})
        kinds = {one.dtype for one in (found["a"], found["both"][0], found["both"][1][0])}
        assert kinds == {torch.float32}


def test_a_metric_takes_no_name_of_the_system(render, tmp_path):
    metric = "--model.metrics.acc=torchmetrics.classification.MulticlassF1Score"
    with (
        inside(render(model="mlp"), tmp_path),
        pytest.raises(SystemExit, match="val/acc is the system's own"),
    ):
        command("train", *FIT, metric, "--model.metrics.acc.num_classes=10")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("classification.MulticlassConfusionMatrix", "val/own is no number: choose an average"),
        ("MeanSquaredError", "Predictions and targets are expected to have the same shape"),
    ],
)
def test_what_a_metric_cannot_do_is_one_sentence(render, tmp_path, metric, message):
    options = [f"--model.metrics.own=torchmetrics.{metric}"]
    options += ["--model.metrics.own.num_classes=10"] * ("class" in metric)
    with inside(render(model="mlp"), tmp_path), pytest.raises(SystemExit, match=message):
        command("train", *FIT, *options)


def test_metrics_that_nothing_updates_are_refused(render, tmp_path, monkeypatch):
    (tmp_path / "silent.py").write_text(
        "from models.classifier import Classifier\n"
        "class Silent(Classifier):\n"
        "    def loss(self, batch):\n"
        "        return self.criterion(self(batch[0]), batch[1])\n"
    )
    metric = "--model.metrics.own=torchmetrics.MeanSquaredError"
    monkeypatch.syspath_prepend(tmp_path)
    for model, options, message in (
        ("mlp", ["--model=silent.Silent"], "loss has to call update_metrics"),
        ("gan", [], "a gan has no targets to compare with"),
    ):
        with inside(render(model=model), tmp_path), pytest.raises(SystemExit, match=message):
            command("train", *FIT, *options, "--best_checkpoint.monitor=val/loss", metric)


def test_a_checkpoint_from_python_holds_no_network_that_a_child_has(render):
    with inside(render(model="mlp")):
        from models.system import System

        class Student(System):
            def __init__(self, network, teacher):
                super().__init__(network)

        assert "teacher" not in Student(torch.nn.Identity(), torch.nn.Identity()).hparams


def test_logits_that_are_not_as_many_as_the_classes_are_refused(render, tmp_path, monkeypatch):
    (tmp_path / "wrong.py").write_text(
        "from models.networks.mlp import MLP\n"
        "class Wrong(MLP):\n"
        "    def __init__(self, input_shape):\n"
        "        super().__init__(input_shape, 12)\n"
        "class Two(Wrong):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images), images\n"
        "from data.digits import Digits\n"
        "from engine.samples import TensorSamples\n"
        "class Dicts(Digits):\n"
        "    def load(self):\n"
        "        images, labels = super().load()[0].samples\n"
        "        return TensorSamples({'image': images, 'label': labels}, labels), {}\n"
    )
    with inside(render(model="mlp"), tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(SystemExit, match="gives 12 logits for 10 classes"):
            command("train", *FIT, "--model.network=wrong.Wrong")
        with pytest.raises(SystemExit, match="tuple.*shape.*, which a tensor has: .*classifier.py"):
            command("train", *FIT, "--model.network=wrong.Two")
        with pytest.raises(SystemExit, match="str.*is_floating_point.*a tensor has: .*images.py"):
            command("train", *FIT, "--data=wrong.Dicts")


@pytest.mark.parametrize("scheduler", ["CosineAnnealingLR", "OneCycleLR"])
def test_a_fit_that_goes_on_has_the_schedule_of_its_whole_length(render, tmp_path, scheduler):
    """As if it had never stopped, and not at the zero that the first part came to."""
    options = [*SMALL, f"--model.scheduler=torch.optim.lr_scheduler.{scheduler}"]
    options += ["--model.scheduler.max_lr=0.01"] * (scheduler == "OneCycleLR")
    options += ["--trainer.limit_train_batches=4", "--trainer.max_epochs=4", "--model.lr=0.01"]
    seen = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    with inside(render(model="mlp"), tmp_path):
        from engine import cli

        made = cli.CLI.instantiate_trainer

        def instantiate_trainer(self, **kwargs):
            trainer = made(self, **kwargs)
            trainer.callbacks.append(Rates())
            return trainer

        cli.CLI.instantiate_trainer = instantiate_trainer
        command("train", "fit", *options)
        whole = seen.copy()
        command("train", "fit", *options, "--trainer.max_epochs=2")
        seen.clear()
        command("train", "fit", *options, "--ckpt_path=last")
    assert len(whole) == 16 and seen == pytest.approx(whole[8:], rel=1e-6)


def test_one_class_is_refused_by_a_classifier(render):
    with inside(render()):
        from models.classifier import Classifier

        with pytest.raises(
            MisconfigurationException, match="one class, cat: a classifier needs two"
        ):
            Classifier(torch.nn.Linear(2, 1), class_names=["cat"])


@pytest.mark.parametrize(
    ("system", "loss"),
    [
        ("autoencoder.Autoencoder", "BCEWithLogitsLoss"),  # pixels are -1 to 1
        ("forecaster.Forecaster", "PoissonNLLLoss"),  # values are scaled
        ("language_model.LanguageModel", "NLLLoss"),  # logits are no log-probabilities
        ("segmenter.Segmenter", "NLLLoss"),
    ],
)
def test_a_loss_of_torchs_that_takes_something_else_is_refused(system, loss):
    with inside(ROOT / "{{cookiecutter.project_slug}}"):
        kind = resolve_name(f"models.{system}")
        with pytest.raises(MisconfigurationException, match=f"loss: {loss} does not take"):
            kind(torch.nn.Identity(), loss=getattr(torch.nn, loss)())

        class Own(torch.nn.Module):
            """Takes real batches alone."""

        assert type(kind(torch.nn.Identity(), loss=Own()).criterion) is Own


def test_balanced_weights_need_data_that_counts_its_classes(render):
    with inside(render()):
        from data.base import Data
        from engine.samples import TensorSamples
        from models.classifier import Classifier

        data, labels = Data(), torch.tensor([1, -100, 0, 1])  # one is not known
        samples = TensorSamples((torch.ones(4), labels), labels)
        data.splits["train"] = torch.utils.data.Subset(samples, range(4))
        assert data.class_counts.tolist() == [1, 2]
        system = Classifier(torch.nn.Flatten(), class_weights="balanced")
        loader = torch.utils.data.DataLoader([(torch.ones(3), 0)])
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        with pytest.raises(MisconfigurationException, match="NoneType has no class_counts; give"):
            trainer.fit(system, loader)


def test_metrics_get_probabilities_whatever_the_range_of_the_logits(render):
    """Of logits that all lie in 0 to 1 torchmetrics would believe that they are probabilities."""
    with inside(render()):
        from models.classifier import Classifier

        metric = MulticlassCalibrationError(3)
        system = Classifier(torch.nn.Identity(), metrics={"ece": metric}).eval()
        system.stage = "val"
        system.on_validation_epoch_start()
        logits, labels = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.8, 0.1]]), torch.tensor([2, 0])
        system.loss((logits, labels))
        expected = MulticlassCalibrationError(3)(logits.softmax(dim=1), labels)
        torch.testing.assert_close(system.measured["val/ece"].compute(), expected)
