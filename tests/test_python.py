"""The parts of a project without its command line: from Python, a notebook or another project."""

import shutil
import sys

import pytest
import torch
from lightning.pytorch import Trainer
from projects import inside
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def test_trainer_and_data_module(render, tmp_path):
    with inside(render(), tmp_path):
        from data.digits import Digits
        from models.classifier import Classifier
        from models.networks.cnn import CNN

        data = Digits()
        trainer = Trainer(**QUIET, logger=False, default_root_dir=tmp_path)
        trainer.fit(Classifier(CNN(data.image_shape, data.num_classes, width=4)), datamodule=data)
        path = trainer.checkpoint_callback.best_model_path
        torch.load(path, weights_only=True)
        network = CNN((1, 8, 8), 10, width=4)
        system = Classifier.load_from_checkpoint(path, network=network, weights_only=True)
        assert system.lr == 1e-3
        [metrics] = trainer.test(system, datamodule=data, ckpt_path=path, verbose=False)
        assert 0 <= metrics["test/acc"] <= 1


def test_a_fit_of_unknown_length_keeps_its_learning_rate(render, tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(torch.rand(240, 1, 8, 8), torch.arange(240) % 10, strict=True)

    with inside(render(model="mlp"), tmp_path):
        from models.classifier import Classifier
        from models.networks.mlp import MLP
        from models.warmup_cosine import WarmupCosine

        system = Classifier(MLP((1, 8, 8), 10, [8]), lr=0.1, scheduler=WarmupCosine)
        trainer = Trainer(**QUIET | {"limit_train_batches": 1.0}, logger=False)
        trainer.fit(system, DataLoader(Stream(), batch_size=8))
        assert trainer.global_step == 30 > trainer.lr_scheduler_configs[0].scheduler.warmup_steps
        assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("model", "make"),
    [
        ("cnn", "from models.classifier import Classifier as S; from models.networks.cnn import CNN\n"
                "system = S(CNN((3, 16, 16), 4), lr=0.1, optimizer=torch.optim.SGD)"),
        ("autoencoder", "from models.autoencoder import Autoencoder as S\n"
                        "from models.networks.autoencoder import ConvAutoencoder as N\n"
                        "system = S(N((3, 16, 16)))"),
        ("gan", "from models.gan import GAN as S; from models.networks.gan import ConvGAN\n"
                "system = S(ConvGAN((3, 16, 16)), num_samples=8)"),
    ],
)  # fmt: skip
def test_plain_data_loaders(render, tmp_path, model, make):
    with inside(render(model=model), tmp_path):
        names: dict = {"torch": torch}
        exec(make, names)
        images = torch.rand(32, 3, 16, 16) * 2 - 1
        loader = DataLoader(TensorDataset(images, torch.arange(32) % 4), batch_size=8)
        trainer = Trainer(**QUIET, logger=False, default_root_dir=tmp_path)
        trainer.fit(names["system"], loader, loader)
        trainer.test(names["system"], loader, verbose=False)
        assert trainer.predict(names["system"], loader)


def test_two_files_work_in_another_project(render, tmp_path, monkeypatch):
    """A system and models/system.py are copied alone, and train a network of the other project."""
    other = tmp_path / "other"
    (other / "models").mkdir(parents=True)
    shutil.copy(render() / "models" / "system.py", other / "models")
    shutil.copy(render() / "models" / "classifier.py", other / "borrowed.py")
    shutil.copy(render() / "models" / "networks" / "cnn.py", other / "borrowed_network.py")
    for name in ("engine", "data"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    with inside(other):
        from borrowed import Classifier
        from borrowed_network import CNN

        loader = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.arange(8)), batch_size=4)
        system = Classifier(CNN((1, 8, 8), 8, width=4))
        trainer = Trainer(**QUIET, logger=False, default_root_dir=tmp_path)
        trainer.fit(system, loader, loader)
        trainer.test(system, loader, verbose=False)
        assert {path.name for path in (other / "models").glob("*.py")} == {"system.py"}


@pytest.mark.parametrize("flag", ["gradient_clip_val=1.0", "accumulate_grad_batches=2"])
def test_trainer_flags_that_manual_optimization_cannot_take_are_refused(render, tmp_path, flag):
    from projects import SMALL, command

    with inside(render(model="gan"), tmp_path):
        with pytest.raises(SystemExit, match="^error: .* manual optimization. Remove"):
            command("train", "fit", *SMALL, f"--trainer.{flag}")


@pytest.mark.parametrize("model", ["cnn", "autoencoder"])
def test_clipping_accumulation_and_determinism_act(render, tmp_path, model):
    from projects import SMALL, command

    with inside(render(model=model), tmp_path):
        options = [*SMALL, "--trainer.max_epochs=1", "--trainer.deterministic=true"]
        plain = command("train", "fit", *options).model.state_dict()
        again = command("train", "fit", *options).model.state_dict()
        clipped = command("train", "fit", *options, "--trainer.gradient_clip_val=1e-6")
        summed = command("train", "fit", *options, "--trainer.accumulate_grad_batches=2")
        assert all(torch.equal(plain[name], again[name]) for name in plain)
        assert any(not torch.equal(plain[n], clipped.model.state_dict()[n]) for n in plain)
        assert summed.trainer.global_step == 1
