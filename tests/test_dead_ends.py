"""What once ended in a traceback, or nowhere, works or says why not."""

import re
import signal
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from projects import SMALL, command, inside

FIT = ["fit", *SMALL, "--trainer.max_epochs=1", "--pictures.every_n_epochs=0"]


@pytest.fixture
def project(render, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    with inside(render(model="mlp"), tmp_path):
        yield tmp_path


def test_weights_alone_are_for_a_new_fit(project):
    command("train", *FIT, "--last_checkpoint.save_weights_only=true")
    with pytest.raises(
        SystemExit, match="last.ckpt holds weights alone, .* --model.init_from logs"
    ):
        command("train", *FIT, "--ckpt_path=last")
    command("train", "test", *SMALL, "--ckpt_path=last")


NETWORK = """
import torch
from torch import nn


def small(input_shape: list[int], num_classes: int, width: int = 8) -> nn.Module:
    size = torch.Size(input_shape).numel()
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


def test_a_function_may_make_the_network(project):
    Path("own_network.py").write_text(NETWORK)
    options = ["--model.network=own_network.small", "--model.network.width=5"]
    command("train", *FIT, *options)
    cli = command("train", "test", *SMALL, "--ckpt_path=best")
    assert [len(p) for p in cli.model.network.parameters()] == [5, 5, 10, 10]


class Numbers(Callback):
    """Keeps what NumPy made, as a user's callback may."""

    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"best": self.value, "more": [np.int64(3)]}

    def load_state_dict(self, state_dict):
        self.value = state_dict["best"]


def test_numbers_of_numpy_in_a_callback_do_not_spoil_a_checkpoint(project):
    from engine.checkpoint_io import AtomicCheckpointIO
    from engine.errors import UserError

    path = project / "last.ckpt"
    swapped = np.arange(3).astype(">i8")  # as files of other machines have them
    whole = torch.arange(3)
    for value, expected in ((np.float64(0.5), 0.5), (np.arange(3), whole), (swapped, whole)):
        states = {"Numbers": Numbers(value).state_dict()}
        AtomicCheckpointIO().save_checkpoint({"callbacks": states}, path)
        state = torch.load(path, weights_only=True)["callbacks"]["Numbers"]
        assert type(state["best"]) is type(expected) and state["more"] == [3]
        assert np.array_equal(state["best"], expected)
    counts = defaultdict(int, {"a": np.bool_(True)}), OrderedDict(a=np.float32(2))
    states = {"Numbers": {"counts": list(counts)}}
    writer = AtomicCheckpointIO()
    writer.save_checkpoint({"callbacks": states}, path)
    state = torch.load(path, weights_only=True)["callbacks"]["Numbers"]
    assert state["counts"] == [{"a": True}, {"a": 2.0}]
    pair = namedtuple("Pair", "a b")(1, 2)
    for value in (slice(3), lambda: 1, signal.SIGINT, pair, threading.Lock()):
        states = {"Numbers": Numbers(value).state_dict()}
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        with pytest.raises(UserError, match=rf"cannot be read again: Numbers: best \({kind}\)"):
            writer.save_checkpoint({"callbacks": states}, path)  # also after one that can be read
    assert [file.name for file in project.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
def test_a_full_disk_leaves_the_old_checkpoint_and_says_why(render, project):
    script = (
        "import resource, torch\n"
        "from engine.checkpoint_io import AtomicCheckpointIO\n"
        "from pathlib import Path\n"
        "from engine.errors import UserError, plain_errors\n"
        "from engine.runs import make_writable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 100_000))\n"
        "try:\n"
        "    make_writable(Path('.'), 'make room')\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with plain_errors():\n"
        "    AtomicCheckpointIO().save_checkpoint({'x': torch.zeros(10)}, 'last.ckpt')\n"
        "    AtomicCheckpointIO().save_checkpoint({'x': torch.zeros(10**6)}, 'last.ckpt')\n"
    )
    root = render(model="mlp")
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
    )
    assert result.returncode == 1
    whole = "error: last.ckpt cannot be written: File too large; the one before is whole\n"
    assert result.stdout == ". cannot be written to (File too large): make room\n"
    assert result.stderr == whole
    assert torch.load("last.ckpt", weights_only=True)["x"].shape == (10,)
    assert [path.name for path in project.iterdir()] == ["last.ckpt"]


def test_where_one_may_not_write(project, monkeypatch, caplog):
    command("train", *FIT)
    from engine import runs

    def refuse(dir: Path) -> Any:
        if dir.name == "version_0":
            raise PermissionError(30, "Read-only file system")
        return TemporaryFile(dir=dir)

    monkeypatch.setattr(runs, "TemporaryFile", refuse)
    before = sorted(Path("logs/version_0").rglob("*"))
    cli = command("train", "test", *SMALL, "--ckpt_path=best")
    assert "test/acc" in cli.trainer.callback_metrics
    assert "what this command writes goes to logs/of_version_0" in caplog.text
    command("train", "predict", *SMALL, "--ckpt_path=best")
    assert Path("logs/of_version_0/predictions.csv").exists()
    assert sorted(Path("logs/version_0").rglob("*")) == before
    why = "logs/version_0 cannot be written to .Read-only file system.: a copy of its checkpoint"
    with pytest.raises(SystemExit, match=why):
        command("train", *FIT, "--ckpt_path=last")
    Path("file").touch()
    with pytest.raises(SystemExit, match="file cannot be written to .*--predictions.output"):
        command("train", "predict", *SMALL, "--ckpt_path=best", "--predictions.output=file/a.csv")
    with pytest.raises(SystemExit, match="file/logs cannot be written to .*default_root_dir"):
        command("train", *FIT, "--trainer.default_root_dir=file/logs")

    def fill_up(*_: object) -> None:
        raise OSError(28, "No space left on device")

    from engine import run_record

    monkeypatch.setattr(run_record, "write_record", fill_up)
    with pytest.raises(SystemExit, match="No space left on device"):
        command("train", *FIT)
    assert not Path("logs/version_1").exists()


@pytest.mark.parametrize("text", ["- tags: [a", "tags: [a]", "- a"])
def test_a_damaged_record_of_a_run_is_named(project, text):
    folder = Path("logs/version_0")
    folder.mkdir(parents=True)
    folder.joinpath("run.yaml").write_text(text)
    with pytest.raises(SystemExit, match="logs/version_0/run.yaml is damaged"):
        command("compare")
    with pytest.raises(SystemExit, match="logs/version_0/run.yaml is damaged"):
        command("train", "test", "--ckpt_path=first")


def test_a_run_whose_best_checkpoint_is_damaged_is_compared(project, capsys):
    folder = Path("logs/version_0/checkpoints")
    folder.mkdir(parents=True)
    folder.joinpath("best.ckpt").write_bytes(b"half")
    folder.with_name("run.yaml").write_text("- tags: [a]")  # it was killed
    command("compare")
    assert re.search("version_0 +a +running, or killed", capsys.readouterr().out)


def test_what_lightning_refuses_after_the_start_is_one_sentence(project, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        command("train", *FIT, "--trainer.val_check_interval=1000")
    assert stop.value.code.startswith("error: `val_check_interval` (1000) must be less than")
    assert not [*Path("logs").glob("*")]
    monkeypatch.setenv("FULL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="val_check_interval"):
        command("train", *FIT, "--trainer.val_check_interval=1000")


@pytest.mark.parametrize("folder", ["my%20work #1", "why? 50%"])
def test_a_database_may_lie_in_any_folder(project, folder):
    from sqlalchemy import make_url

    from engine.loggers import database_address

    path = project / folder
    path.mkdir()
    with inside(Path(sys.modules["engine"].__path__[0]).parent, path):
        address = make_url(database_address(path / "logs" / "mlflow.db"))
        assert Path(address.database).absolute() == path / "logs" / "mlflow.db"
    with pytest.raises(ValueError, match="give a --trainer.default_root_dir without"):
        database_address(path / "mlflow.db")


DOUBLES = """
import numpy as np
from torch.utils.data import Dataset

from models.classifier import Classifier


class Rows(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return np.full(4, index / 40), index % 2


class Direct(Classifier):
    monitor = "val/loss"

    def loss(self, batch):
        return self.criterion(self.network(batch[0]), batch[1])
"""


def test_numbers_of_numpy_are_float64_and_serve_networks_of_any_precision(project):
    Path("doubles.py").write_text(DOUBLES)
    options = ["--data=data.plain.PlainData", "--data.train=doubles.Rows", "--data.batch_size=8"]
    options += ['--data.known_facts={"input_shape": [4], "num_classes": 2}']
    command("train", *FIT, *options)
    own = ["--model=doubles.Direct", "--model.network=models.networks.mlp.MLP"]
    with pytest.raises(SystemExit, match=r"float64, as NumPy's numbers are: .*float\(\).*64-true"):
        command("train", *FIT, *options, *own)
    command("train", *FIT, *options, *own, "--trainer.precision=64-true")


def test_line_ends_do_not_depend_on_git(render, tmp_path):
    for folder in (render(), Path(__file__).parents[1]):
        assert "* text=auto eol=lf" in (folder / ".gitattributes").read_text()


def test_what_a_cpu_cannot_compute_in_16_bits_is_one_sentence(project, monkeypatch):
    from models.networks.mlp import MLP

    def fail(*inputs):  # as recurrent layers on a CPU without bfloat16
        raise RuntimeError("could not create a primitive descriptor for the LSTM.")

    monkeypatch.setattr(MLP, "forward", fail)
    with pytest.raises(SystemExit, match="^error: could not .* This CPU cannot .* 32-true"):
        command("train", *FIT, "--trainer.precision=bf16-mixed")


def test_an_optimizer_that_refuses_its_weights_is_one_sentence(project):
    from engine.errors import mistake_of

    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    with pytest.raises(RuntimeError) as raised:
        torch.optim.SparseAdam([weight]).step()
    assert mistake_of(raised.value).startswith("SparseAdam does not support dense gradients")


CHANGED = {
    "renamed": (
        "def small(",
        "def other(",
        "own_network.small, which is not here .* small = NEW_N",
    ),
    "removed": (
        ", width: int = 8",
        "",
        "fitted with width of own_network.small, which takes that no",
    ),
    "needed": (
        ", width",
        ", depth: int, width",
        "without depth of own_network.small, .* a default",
    ),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_network_that_has_changed_since_the_fit_is_named(project, monkeypatch, change):
    before, after, message = CHANGED[change]
    text = NETWORK.replace("width)", "8)").replace("width,", "8,")
    Path("own_network.py").write_text(text)
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    command("train", *FIT, "--model.network=own_network.small")
    Path("own_network.py").write_text(text.replace(before, after))
    for script, *options in (["train", "test", *SMALL, "--ckpt_path=best"], ["export", "best"]):
        monkeypatch.delitem(sys.modules, "own_network")
        with pytest.raises(SystemExit, match=message):
            command(script, *options)


def test_a_loader_of_predictions_names_its_arguments(project, monkeypatch):
    """Lightning makes it anew, and says otherwise that torch's DataLoader has an error."""
    Path("own_data.py").write_text(
        "from torch.utils.data import DataLoader\n"
        "from data.digits import Digits\n"
        "class Own(Digits):\n"
        "    def predict_dataloader(self):\n"
        "        return DataLoader(self.splits['predict'], 8)\n"
    )
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    command("train", *FIT, "--data=own_data.Own", *SMALL)
    with pytest.raises(SystemExit, match="name what comes after the data set, as DataLoader"):
        command("train", "predict", "--data=own_data.Own", *SMALL)


def test_a_library_is_not_the_users_code_wherever_it_lies(render, tmp_path):
    """With --user, or in an environment that sees the system's packages, it is elsewhere."""
    with inside(render(model="mlp"), tmp_path):
        from engine.errors import is_own

        places = ["lib/python3.11/site-packages/torch", "lib/python3/dist-packages/torch", "models"]
        for place in places:
            Path(place).mkdir(parents=True)
            Path(place, "one.py").touch()
        assert [is_own(f"{place}/one.py") for place in places] == [False, False, True]
