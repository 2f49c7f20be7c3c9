"""A network, a data set, a logger and a modality are added as CONTRIBUTING.md says, and nothing else
is edited."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml
from guide import gaps
from projects import SMALL, command, inside, small_data
from templates import ROOT, render_template

PROJECT = "{{cookiecutter.project_slug}}"
NETWORK = '''\
"""The smallest classifier."""

from math import prod

from torch import Tensor, nn


class Tiny(nn.Module):
    """Flattened image -> class logits, after one hidden layer of `width` units."""

    def __init__(self, image_shape: tuple[int, ...], num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(prod(image_shape), width), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) floats -> (B, num_classes) logits."""
        return self.head(self.backbone(images))
'''
SMALL_DATA = '''\
"""scikit-learn brings the numerals along: nothing to make."""

from pathlib import Path


def write(folder: Path) -> list[str]:
    return []
'''
CLIPS = '''\
"""Clips of sound: WAV files of 16 bits."""

import wave
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from data.classes import ClassData
from engine.files import files_below


class ClipData(ClassData):
    """A batch is int16 (B, T), on the device floats (B, 1, T) in [-1, 1], and class indices (B,)."""

    num_samples: int  # of a clip

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "num_samples": self.num_samples}

    def adopt(self, facts: dict[str, Any]) -> None:
        super().adopt(facts)
        self.num_samples = facts["num_samples"]

    def read(self, source: Any) -> "Clips":
        names = files_below(Path(source))
        return Clips(names, torch.full((len(names),), -1), self.num_samples)

    def preparation(self) -> nn.Module:
        return Scale()


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(200))

    def forward(self, batch: Any) -> Any:
        clips, *others = batch
        return clips.unsqueeze(1) / 32768 * self.window, *others


class Clips(Dataset):
    def __init__(self, names: list[str], labels: Tensor, num_samples: int) -> None:
        self.names, self.labels, self.num_samples = names, labels, num_samples

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with wave.open(self.names[index], "rb") as file:
            data = file.readframes(self.num_samples)
        return torch.frombuffer(bytearray(data), dtype=torch.int16), self.labels[index]
'''
CLIP_FOLDER = '''\
"""Your own clips, in a folder for each class."""

from pathlib import Path
from typing import Any

import torch

from data.clips import ClipData, Clips
from engine.files import files_below
from engine.splits import Rows


class ClipFolder(ClipData):
    """`DATA_DIR/<class>/*.wav`."""

    def __init__(self, data_dir: str = "datasets/clips", num_samples: int = 200, **kwargs: Any):
        super().__init__(**kwargs)
        self.root, self.num_samples = Path(data_dir), num_samples
        self.class_names = sorted(path.name for path in self.root.glob("*"))

    def load(self) -> tuple[Clips, Rows]:
        names = files_below(self.root)
        labels = [self.class_names.index(Path(name).parent.name) for name in names]
        return Clips(names, torch.tensor(labels), self.num_samples), {}
'''
SMALL_CLIPS = '''\
"""Noise, loud and soft."""

import wave
from pathlib import Path

import numpy as np


def write(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name, scale in (("loud", 9000), ("soft", 900)):
        (folder / name).mkdir()
        for i in range(30):
            with wave.open(str(folder / name / f"{i:02}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes((scale * random.normal(size=200)).astype("<i2").tobytes())
    return [f"--data.data_dir={folder}"]
'''
EAR = '''\
"""Convolutions on waveforms."""

from torch import Tensor, nn


class Ear(nn.Module):
    """Waveforms -> convolution, ReLU, mean over time -> class logits."""

    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        layers = nn.Conv1d(1, width, 9, stride=4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, 1, T) floats -> (B, num_classes) logits."""
        return self.head(self.backbone(clips))
'''
MODALITY_ROW = {
    "name": "clips",  # one that an addition to the template is not likely to have
    "example": '"clips"',
    "files": ["data/clips.py", "data/classes.py"],
    "readme": ["To predict new clips: `--data.predict_dir FOLDER`."],
}
NETWORK_ROW = {
    "name": "tiny",
    "class": "Tiny",
    "system": "classifier",
    "modalities": ["images"],
    "arguments": ["width: 16"],
    "lr": 0.01,
    "augment": False,
    "max_epochs": 5,
    "batch_norm": False,
}
DATA_ROW = {
    "name": "numerals",
    "class": "Numerals",
    "modality": "images",
    "model": "tiny",
    "arguments": ["batch_size: 32"],
    "augments": True,
    "log_every_n_steps": 10,
    "packages": ["scikit-learn>=1.7"],
}
CLIPS_ROW = {
    **{**DATA_ROW, "name": "clip_folder", "class": "ClipFolder", "modality": "clips"},
    **{"model": "ear", "augments": False, "packages": []},
}
EAR_ROW = {
    **{**NETWORK_ROW, "name": "ear", "class": "Ear", "modalities": ["clips"]},
    "arguments": ["width: 4"],
}
LOGGER_ROW = {
    "name": "table",
    "class_path": "lightning.pytorch.loggers.CSVLogger",
    "arguments": ["save_dir: logs", "name: PROJECT_SLUG"],
}


def add(settings: dict, table: str, prompt: str, row: dict) -> None:
    """A row, a choice and its label."""
    settings[table].append(row)
    settings[prompt].append(row["name"])
    settings["__prompts__"][prompt][row["name"]] = f"{row['name']}: made up"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A copy of the template with these rows and files more; do not change it."""
    folder = tmp_path_factory.mktemp("template")
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", "build", ".git")
    shutil.copytree(ROOT, folder, ignore=ignore, dirs_exist_ok=True)
    project = folder / PROJECT
    (project / "models" / "networks" / "tiny.py").write_text(NETWORK, "utf-8")
    digits = (project / "data" / "digits.py").read_text("utf-8")
    (project / "data" / "numerals.py").write_text(digits.replace("Digits", "Numerals"), "utf-8")
    (project / "tests" / "small_data" / "numerals.py").write_text(SMALL_DATA, "utf-8")
    (project / "data" / "clips.py").write_text(CLIPS, "utf-8")
    (project / "data" / "clip_folder.py").write_text(CLIP_FOLDER, "utf-8")
    (project / "tests" / "small_data" / "clip_folder.py").write_text(SMALL_CLIPS, "utf-8")
    (project / "models" / "networks" / "ear.py").write_text(EAR, "utf-8")
    settings = json.loads((folder / "cookiecutter.json").read_text("utf-8"))
    add(settings, "_models", "model", NETWORK_ROW)
    add(settings, "_data", "data", DATA_ROW)
    add(settings, "_loggers", "logger", LOGGER_ROW)
    settings["_modalities"].append(MODALITY_ROW)
    add(settings, "_models", "model", EAR_ROW)
    add(settings, "_data", "data", CLIPS_ROW)
    (folder / "cookiecutter.json").write_text(json.dumps(settings, indent=2), "utf-8")
    return folder


@pytest.fixture(scope="module")
def project(template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    return render_template(folder, template=template, data="numerals", logger="table")


def test_nothing_is_forgotten(template):
    assert gaps(template) == []


def test_the_new_cell_trains_resumes_tests_and_predicts(project, tmp_path):
    with inside(project, tmp_path):
        options = [*SMALL, *small_data("numerals", tmp_path / "data")]
        cli = command("train", "fit", *options, "--trainer.max_epochs=1")
        assert type(cli.datamodule).__name__ == "Numerals"
        assert type(cli.model.network).__name__ == "Tiny"  # what suits the data: auto
        assert cli.model.network.head.in_features == 16
        assert type(cli.trainer.logger).__name__.endswith("CSVLogger")
        cli = command("train", "fit", *options, "--trainer.max_epochs=2", "--ckpt_path=last")
        assert cli.trainer.current_epoch == 2
        metrics = command("train", "test", *options, "--ckpt_path=best").trainer.callback_metrics
        assert 0 <= metrics["test/acc"] <= 1
        command("train", "predict", *options, "--ckpt_path=best")
        assert Path("logs", "version_0", "predictions.csv").is_file()


def test_a_new_modality_predicts_files_and_exports_with_the_numbers_of_plain_torch(
    template, tmp_path, recwarn
):
    project = render_template(tmp_path, template=template, data="clip_folder", logger="csv")
    with inside(project, tmp_path):
        options = [*SMALL, *small_data("clip_folder", tmp_path / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        command("export", "best", "--output=model.onnx")
        command("export", "best", "--output=model.pt2")
        assert not [w for w in recwarn if re.search("complete tensor|pictures", str(w.message))]
        Path("data").rename("others")  # what the fit was trained on need not be there
        predict = ["predict", *options, "--ckpt_path=best", "--data.predict_dir=others/soft"]
        with pytest.raises(SystemExit, match="num_samples 200, but .* has num_samples 99"):
            command("train", *predict, "--data.num_samples=99")
        network = command("train", *predict).model.network.eval()
        paths = sorted(Path("others", "soft").iterdir())[:16]  # two batches
        clips = torch.stack([torch.from_file(str(p), size=222, dtype=torch.int16) for p in paths])
        clips = clips[:, 22:]  # after the header
        with torch.no_grad():
            right = network(clips[:, None] / 32768 * torch.hann_window(200)).softmax(dim=1)
        with open("logs/version_0/predictions.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["input"] for row in rows] == [*map(str, paths)]
        found = [[float(row[f"probability_{name}"]) for name in ("loud", "soft")] for row in rows]
        torch.testing.assert_close(torch.tensor(found), right)
        session = onnxruntime.InferenceSession("model.onnx")
        _, served = session.run(None, {"input": clips.numpy()})
        torch.testing.assert_close(torch.from_numpy(served), right, atol=1e-5, rtol=1e-4)


def test_the_project_holds_the_new_files_and_none_of_the_others(project):
    assert [path.name for path in sorted((project / "models" / "networks").glob("*.py"))] == [
        *("__init__.py", "tiny.py")
    ]
    assert not (project / "data" / "digits.py").exists()
    assert "scikit-learn>=1.7" in (project / "pyproject.toml").read_text("utf-8")
    default = yaml.safe_load((project / "configs" / "default.yaml").read_text("utf-8"))
    assert default["trainer"]["logger"]["init_args"]["name"] == "my-lightning-project"
    assert "from data.numerals import Numerals" in (project / "README.md").read_text("utf-8")


@pytest.mark.nightly
def test_the_tests_of_the_template_go_through_the_new_rows(template):
    tests = ["tests/test_answers.py", "tests/test_cells.py", "tests/test_hardware_rules.py"]
    tests += ["tests/test_data.py", "tests/test_readme.py"]
    chosen = "tiny and digits or tiny and numerals or norm and tiny or numerals or every_choice"
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", f"{chosen} or slug or core"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *tests],
        cwd=template,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:]


def without(rows: list[dict], name: str) -> list[dict]:
    return [row for row in rows if row["name"] != name]


FORGOTTEN = {
    "row": (
        lambda settings: settings.update(_models=without(settings["_models"], "vit")),
        [
            "_models has no row for model=vit",
            "models/networks/vit.py belongs to no row",
        ],
    ),
    "choice": (
        lambda settings: settings["data"].remove("mnist"),
        ["data does not offer mnist, a row of _data"],
    ),
    "label": (
        lambda settings: settings["__prompts__"]["logger"].pop("csv"),
        ["__prompts__ has no label for logger=csv"],
    ),
    "logger": (
        lambda settings: settings.update(_loggers=without(settings["_loggers"], "comet")),
        ["_loggers has no row for logger=comet"],
    ),
    "file": (
        lambda settings: add(settings, "_models", "model", NETWORK_ROW),
        ["there is no models/networks/tiny.py, which the row tiny of _models"],
    ),
    "small data": (
        lambda settings: add(settings, "_data", "data", {**DATA_ROW, "model": "mlp"}),
        [
            "there is no data/numerals.py, which the row numerals of _data",
            "there is no tests/small_data/numerals.py, which the row numerals of _data",
        ],
    ),
    "key": (
        lambda settings: settings["_models"][0].pop("lr"),
        ["the row cnn of _models lacks the key lr"],
    ),
    "misspelt key": (
        lambda settings: settings["_data"][0].update(package=[]),
        ["the row digits of _data has a key that nothing reads: package"],
    ),
    "class": (
        lambda settings: settings["_models"][1].update({"class": "Mlp"}),
        ["models/networks/mlp.py has no class Mlp, which the row mlp of _models"],
    ),
    "modality": (
        lambda settings: settings["_data"][0].update(modality="sounds"),
        [
            "modality in the row digits of _data is sounds, which is no row of _modalities",
            "model in the row digits of _data is cnn, whose `modalities` lack sounds",
        ],
    ),
    "model that takes it": (
        lambda settings: settings["_data"][0].update(model="gpt"),
        ["model in the row digits of _data is gpt, whose `modalities` lack images"],
    ),
    "list": (
        lambda settings: settings["_data"][0].update(packages="scikit-learn", augments="yes"),
        [
            "packages in the row digits of _data is text, not a list",
            "augments in the row digits of _data is text, not true or false",
        ],
    ),
    "choice with a label": (
        lambda settings: settings["__prompts__"]["data"].update(sounds="sounds: wav"),
        ["__prompts__ has a label for no data: sounds"],
    ),
    "row twice": (
        lambda settings: settings["_data"].append(settings["_data"][0]),
        ["_data has a row twice, or another order than the choices"],
    ),
    "file of a modality": (
        lambda settings: settings["_modalities"][0]["files"].remove("data/images.py"),
        ["data/images.py is not among the `files` of the row images of _modalities"],
    ),
    "preparation": (
        lambda settings: settings["_modalities"][0].update(preparation="data/image.py"),
        ["data/image.py is not among the `files` of the row images of _modalities"],
    ),
}


@pytest.mark.parametrize("piece", FORGOTTEN)
def test_what_is_forgotten_is_named(tmp_path, piece):
    forget, sentences = FORGOTTEN[piece]
    settings = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    forget(settings)
    (tmp_path / "cookiecutter.json").write_text(json.dumps(settings), "utf-8")
    shutil.copytree(ROOT / PROJECT, tmp_path / PROJECT)
    known = gaps(ROOT)  # of which `test_nothing_is_forgotten` tells
    found = [gap for gap in gaps(tmp_path) if gap not in known]
    for sentence in sentences:
        assert any(sentence in gap for gap in found), found
    assert len(found) == len(sentences), found


def test_a_file_without_a_row_is_named(tmp_path):
    shutil.copy(ROOT / "cookiecutter.json", tmp_path)
    shutil.copytree(ROOT / PROJECT, tmp_path / PROJECT)
    (tmp_path / PROJECT / "models" / "networks" / "tiny.py").write_text(NETWORK, "utf-8")
    [gap] = gaps(tmp_path)
    assert gap.startswith("models/networks/tiny.py belongs to no row")


def test_a_key_that_stands_twice_is_named(tmp_path):
    text = (ROOT / "cookiecutter.json").read_text("utf-8")
    twice = text.replace('"name": "tabular",', '"name": "tabular", "optimizers": 1,', 1)
    (tmp_path / "cookiecutter.json").write_text(twice, "utf-8")
    shutil.copytree(ROOT / PROJECT, tmp_path / PROJECT)
    assert gaps(tmp_path) == ["cookiecutter.json: tabular has twice the key optimizers"]
