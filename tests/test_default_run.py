"""What a newcomer sees first: `python train.py` with the default answers, in a new process."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml


@pytest.fixture(scope="module")
def default_run(render):
    """A fit of two epochs and a test of its best checkpoint, each as typed."""
    project = render(copy=True)
    outputs = []
    for options in (["--trainer.max_epochs", "2"], ["test", "--ckpt_path", "best"]):
        command = [sys.executable, "train.py", *options]
        result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr[-3000:]
        outputs.append(result.stdout + result.stderr)
    return project, outputs


def test_is_installed_without_a_word_and_puts_nothing_beside_its_dependencies(render, tmp_path):
    """As `pip install -e .` does it, which shows what a build says."""
    tomllib = pytest.importorskip("tomllib")
    project = render(copy=True)
    system = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["build-system"]
    build = f"import sys, {system['build-backend']} as it; print(it.build_editable(sys.argv[1]))"
    command = [sys.executable, "-W", "error", "-c", build, tmp_path]
    before = {*project.iterdir()}
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert (result.stderr, {*project.iterdir()}) == ("", before)
    with zipfile.ZipFile(tmp_path / result.stdout.strip()) as wheel:
        assert {name.split("/")[0] for name in wheel.namelist()} == {
            "my_lightning_project-0.1.0.dist-info"
        }
        assert any(b"Requires-Dist: torch>=" in wheel.read(name) for name in wheel.namelist())


def test_prints_no_warning(default_run):
    _, outputs = default_run
    for output in outputs:
        assert not [line for line in output.splitlines() if re.search("[Ww]arn|WARN|Tip:", line)]


def test_begins_with_what_is_trained_and_draws_no_bar_in_a_pipe(default_run):
    _, (output, _) = default_run
    assert re.search(r"^CNN: 288,170 parameters to train on \w+, \S+$", output, re.MULTILINE)
    assert not re.search("FLOPs|TPU|it/s", output)
    epochs = re.findall(r"^Epoch (\d): train/loss [\d.]+, val/acc", output, re.MULTILINE)
    assert epochs == ["0", "1"]


def test_ends_with_what_came_out(default_run):
    project, (output, tested) = default_run
    assert "Ended:      after 2 of 2 epochs, 40 steps\n" in output
    figures = re.findall(
        r"^Best epoch: \d: val/brier (\S+), val/acc (\S+) \((\d+) of (\d+)\)", output, re.M
    )
    [[brier, share, count, size]] = figures
    assert float(share) == pytest.approx(int(count) / int(size), abs=1e-4)
    best = torch.load(project / "logs/version_0/checkpoints/best.ckpt", weights_only=True)
    assert best["figures"]["val/brier"][0] == pytest.approx(float(brier), rel=1e-3)
    assert "\nCurves:     tensorboard --logdir logs\n" in output
    assert re.search(r"\nPredict:    python train.py predict .*--data.predict_dir PATH ", output)


def test_ends_with_the_command_that_tests_it(default_run):
    project, (output, _) = default_run
    [config, path] = re.findall(r"train.py test --config (\S+) --ckpt_path (\S+)", output)[0]
    assert (project / config).is_file()
    assert (project / path).is_file()


def test_leaves_a_run_folder(default_run):
    project, _ = default_run
    run = project / "logs" / "version_0"
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert config["model"]["init_args"]["lr"] > 0
    [record] = yaml.safe_load((run / "run.yaml").read_text("utf-8"))
    assert record["command"] == ["train.py", "fit", "--trainer.max_epochs", "2"]
    assert record["packages"]["torch"] == importlib.metadata.version("torch")
    assert [path.name for path in (project / "logs").iterdir()] == ["version_0"]
    for name in ("best", "last"):
        torch.load(Path(run, "checkpoints", f"{name}.ckpt"), weights_only=True)
    assert list(run.glob("events.out.tfevents.*"))
