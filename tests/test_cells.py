"""Every pair of data and model is rendered, linted, trained, resumed, evaluated and predicted."""

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml
from projects import SMALL, command, inside, small_data
from templates import CELLS, CHOICES, DATA, LOGGERS, MODELS, ROOT, each_once, row_of

FAST = each_once()  # what a maintainer runs on every save


def cells(chosen: list, fast: list, slow: Sequence = ()) -> list:
    """Parameters of a test: cells that are neither fast nor slow are for the night."""
    marks = {True: pytest.mark.slow, False: pytest.mark.nightly}
    return [
        pytest.param(*cell, marks=[] if cell in fast else marks[cell in slow], id="-".join(cell))
        for cell in chosen
    ]


def test_the_fast_cells_have_each_model_and_each_data_set():
    assert {data for data, _ in FAST} == {*DATA}
    assert {model for _, model in FAST} == {*MODELS}


ALL = [(*cell, "all") for cell in CELLS]
CORE = [("digits", "cnn", "core"), ("digits", "gan", "core")]
EACH = [*((*cell, "all") for cell in FAST), *CORE]
BOTH = [("digits", "cnn", "all"), CORE[0]]  # of `extras`
# One cell of each system.
SYSTEM = {row_of(*cell)["system"]: (*cell, "all") for cell in reversed(FAST)}


@pytest.mark.parametrize(("data", "model", "extras"), cells([*ALL, *CORE], [*ALL, *CORE]))
def test_renders_clean(render, data, model, extras):
    project = render(data=data, model=model, extras=extras)
    for path in project.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8").replace("${{", "")
            text = text.replace("cookiecutter-", "").replace("cookiecutter gh:", "")
            assert "cookiecutter" not in text, path
            assert path.suffix == ".py" or not re.search(r"\{\{|\{%|\{#", text), path
    for path in project.rglob("*.yaml"):
        yaml.safe_load(path.read_text(encoding="utf-8"))
    ruff = [sys.executable, "-m", "ruff"]
    for arguments in (["check", "--no-cache", "."], ["format", "--no-cache", "--check", "."]):
        result = subprocess.run([*ruff, *arguments], cwd=project, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
    for path in project.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), path, "exec")


# What pictures, charts and matrices say when they stand aside.
@pytest.mark.filterwarnings("error:No (pictures|charts|confusion matrix)")
@pytest.mark.parametrize(("data", "model"), cells(CELLS, FAST))
def test_trains_resumes_evaluates_predicts(render, tmp_path, capsys, data, model):
    project = render(data=data, model=model)
    with inside(project, tmp_path):
        options = [*SMALL, *small_data(data, tmp_path / "data")]
        fitted = command("train", "fit", *options, "--trainer.max_epochs=1")
        run = Path("logs", "version_0")
        checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        assert checkpoint["state_dict"].keys() == fitted.model.state_dict().keys()
        steps = fitted.trainer.global_step
        resumed = command("train", "fit", *options, "--trainer.max_epochs=2", "--ckpt_path=last")
        assert resumed.trainer.global_step == 2 * steps > 0
        for subcommand in ("validate", "test"):
            trainer = command("train", subcommand, *options, "--ckpt_path=best").trainer
            metrics = trainer.callback_metrics
            assert metrics
            assert all(torch.isfinite(value) for value in metrics.values())
        data = command("train", "predict", *options, "--ckpt_path", str(run)).datamodule
        loader = data.predict_dataloader()
        with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        inputs = min(2 * loader.batch_size, len(loader.dataset))
        assert len(rows) == inputs * (data.rows_per_input or 1)
        assert [path.name for path in Path("logs").glob("version_*")] == ["version_0"]


# Of the images' systems those of the default answers stand for the others.
BY_DAY = [cell for cell in SYSTEM.values() if DATA[cell[0]]["modality"] != "images"]
OWN = cells(EACH, [], [*BY_DAY, *BOTH])


@pytest.mark.parametrize(("data", "model", "extras"), OWN)
def test_the_projects_own_tests_pass(render, data, model, extras):
    project = render(data=data, model=model, extras=extras, copy=True)
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(pytest_command, cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert "warning" not in result.stdout, result.stdout[-4000:]
    assert not (project / "logs").exists(), "the tests leave files in the project"


def check_types(project: Path, cache: Path) -> None:
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "."]
    result = subprocess.run(mypy, cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="session")
def mypy_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")  # what the types of torch are


@pytest.mark.slow
def test_types_of_every_file(render, tmp_path, mypy_cache):
    """In one folder, which takes the time of one project."""
    for project in with_every_file(render):
        shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    check_types(tmp_path, mypy_cache)


@pytest.mark.parametrize(("data", "model", "extras"), cells(EACH, [], BOTH))
def test_types_of_a_project(render, mypy_cache, data, model, extras):
    """No file imports one that an answer leaves out."""
    check_types(render(data=data, model=model, extras=extras), mypy_cache)


@pytest.mark.parametrize("logger", LOGGERS)
def test_each_logger_is_one_that_the_command_line_takes(render, tmp_path, capsys, logger):
    with inside(render(logger=logger), tmp_path):
        with pytest.raises(SystemExit) as stop:
            command("train", "fit", "--print_config")
        output = capsys.readouterr()
        assert not stop.value.code, output.err
        config = yaml.safe_load(output.out)
        assert config["trainer"]["logger"]["class_path"] == LOGGERS[logger]["class_path"]


def with_every_file(render: Callable) -> list[Path]:
    """Projects that together have all files of the template."""
    projects = [render(data=data, model=model) for data, model in CELLS]
    projects += [render(logger=logger) for logger in LOGGERS]
    projects.append(render(strategy="fsdp2", accelerator="cpu", devices="2"))
    projects.append(render(num_nodes="2", strategy="ddp", accelerator="gpu", devices="8"))
    return projects


def test_every_file_of_the_template_is_in_a_project(render):
    """A file that no answer keeps is dead."""
    template = ROOT / "{{cookiecutter.project_slug}}"
    files = {
        path.relative_to(template).as_posix().replace("{{'pyproject.toml'}}", "pyproject.toml")
        for path in template.rglob("*")
        if path.is_file() and "cache" not in path.as_posix()
    }
    kept = {
        p.relative_to(project).as_posix()
        for project in with_every_file(render)
        for p in project.rglob("*")
    }
    assert files <= kept, (
        f"in no project: {sorted(files - kept)}. A file of a model, a system, a data set or a logger"
        " stands in the key `files` of its row in cookiecutter.json; hooks/post_gen_project.py has"
        " the others in FILES"
    )


@pytest.mark.parametrize("prompt", list(CHOICES))
def test_every_choice_is_rendered(render, prompt):
    """A new choice without a project in this file fails here."""
    companions = {
        "mps": {"accelerator": "mps"},
        "tpu": {"accelerator": "tpu"},
    }
    gpu = {"accelerator": "gpu", "devices": "2"}
    for choice in CHOICES[prompt]:
        answers = {prompt: choice, **companions.get(choice, {})}
        if prompt == "model" and choice != "auto":
            answers["data"] = next(data for data, model in CELLS if model == choice)
        if prompt == "strategy" and choice != "auto":
            answers |= gpu
        if prompt == "precision" and choice != "auto":
            answers |= gpu
        project = render(**answers)
        assert (project / "configs" / "trainer.yaml").is_file()
