"""A fit that is continued ends with bit for bit the weights of one that was not interrupted."""

from pathlib import Path

import pytest
import torch
from projects import ONE_CPU, QUIET, command, inside

# Each save stays, as a kill right after it would leave it.
EVERY_EPOCH = ["--last_checkpoint.filename={epoch}", "--last_checkpoint.save_top_k=-1"]
EVERY_7_STEPS = [
    *("--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"),
    *("--last_checkpoint.every_n_train_steps=7", "--last_checkpoint.save_on_train_epoch_end=null"),
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
        assert continued.trainer.global_step == whole.trainer.global_step
        states = [cli.model.state_dict() for cli in (whole, continued)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        optimizers = [cli.trainer.optimizers[0].state_dict()["state"] for cli in (whole, continued)]
        for key, moments in optimizers[0].items():
            assert torch.equal(moments["exp_avg"], optimizers[1][key]["exp_avg"])


def test_a_save_is_atomic(render, tmp_path, monkeypatch):
    with inside(render(), tmp_path):
        from runs import AtomicCheckpointIO

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
