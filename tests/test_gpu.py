"""benchmarks/gpu, as far as it goes without a card: what it says, takes along and writes down."""

import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest
from templates import DATA, MODELS, NETWORKS, ROOT, row_of

GPU = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def module(monkeypatch):
    """`module("record")` is a file of benchmarks/gpu."""
    monkeypatch.syspath_prepend(str(GPU))
    yield importlib.import_module
    for path in GPU.glob("[a-z]*.py"):  # not __main__, which is pytest's
        sys.modules.pop(path.stem, None)


def test_without_a_card_it_says_in_a_sentence_what_it_needs():
    result = subprocess.run(
        [sys.executable, str(GPU)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and not result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith("error: benchmarks/gpu needs an NVIDIA card that torch can use")
    assert "torch 2.9 or newer" in line and "CUDA_VISIBLE_DEVICES is ''" in line


def test_the_wheels_are_what_a_machine_with_torch_and_lightning_may_lack(module):
    wheels = module("wheels")
    names = wheels.closure(wheels.WANTED) - wheels.closure(wheels.THERE)
    assert {"cookiecutter", "jsonargparse", "torchdata", "typeshed-client"} <= names
    assert not {"torch", "numpy", "lightning", "pyyaml"} & names


def test_what_is_neither_installed_nor_in_the_wheels_is_named(module):
    missing = module("wheels").missing
    assert missing(["torch>=2.9", "surely-not-installed>=1", "lightning"]) == [
        "surely-not-installed"
    ]


def test_a_card_trains_each_network_and_each_data_set_whose_packages_are_here(module):
    path = GPU / "__main__.py"
    spec = importlib.util.spec_from_file_location("gpu_main", path)
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    found = main.cells_here()
    assert {row_of(*cell)["name"] for cell in found} == {*NETWORKS}
    assert {data for data, _ in found} == {*DATA}


def test_only_what_is_missing_is_taken_from_the_wheels(module, monkeypatch, tmp_path):
    wheels = module("wheels")
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    for name in ("torch-2.9.0", "surely_not_installed-1.0"):
        with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as file:
            file.writestr(f"{name.split('-')[0]}.py", "")
    assert wheels.unpack_missing(tmp_path / "site") == ["surely_not_installed 1.0"]
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["surely_not_installed.py"]


def test_every_model_has_a_goal_on_a_card(module):
    goals = module("cells").GOALS
    # Those of images, and of text the one that wants a card most.
    models = {name for name, row in MODELS.items() if "images" in row["modalities"]} | {"gpt"}
    missing = models - set(goals)
    assert not missing, f"add {missing} to GOALS in benchmarks/gpu/cells.py"


def test_the_page_has_the_tables_of_the_recorded_runs(module):
    record = module("record")
    assert record.table(record.runs()) in record.PAGE.read_text("utf-8"), (
        "docs/hardware.md differs from docs/gpu_runs.json: call write() of benchmarks/gpu/record.py"
    )


def test_a_later_run_adds_a_column_and_the_same_run_replaces_its_own(module, monkeypatch, tmp_path):
    record = module("record")
    monkeypatch.setattr(record, "RUNS", tmp_path / "runs.json")
    monkeypatch.setattr(record, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("Before\n{}\nold\n{}\nAfter\n".format(*record.MARKERS))
    run = {
        **{"card": "A", "driver": "1", "date": "2026-01-01", "python": "3.12", "torch": "2.9"},
        **{
            "lightning": "2.6.6",
            "seconds": 9,
            "passed": 3,
            "failed": [],
            "left": [],
            "trained": {},
        },
        "steps": {},
        "race": [
            {"job": "mlp", "ours": 9, "by hand": 10, "share": 0.9, "goal": 0.6}
            | {"memory": [1, 2], "first step": [3, 4]}
        ],
    }
    record.keep(run)
    record.keep({**run, "card": "B", "race": []})
    record.keep({**run, "seconds": 7})
    assert [(each["card"], each["seconds"]) for each in record.runs()] == [("B", 9), ("A", 7)]
    text = (tmp_path / "page.md").read_text("utf-8")
    assert text.startswith("Before\n") and text.endswith("After\n") and "old" not in text
    assert "| mlp (goal 0.6) | – | 0.90 |" in text
    assert "| mlp | – | 9; 10 |" in text


@pytest.mark.nightly
def test_the_way_of_a_run_is_rehearsed_on_a_cpu():
    command = [sys.executable, str(GPU), "--rehearse"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    for line in ("mlp 32-true: exact resume", "mlp bf16-mixed: compile", "mlp, JPEG"):
        assert f"passed  {line}\n" in result.stdout
