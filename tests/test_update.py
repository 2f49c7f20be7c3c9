"""A project follows its template: cruft takes over what changed and leaves the user's edits."""

import shutil

import cruft
import pytest
from projects import git
from templates import ROOT

PROJECT = "{{cookiecutter.project_slug}}"


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A repository with the template in it."""
    monkeypatch.setenv("HOME", str(tmp_path))  # neither the user's configuration nor replays
    folder = tmp_path / "template"
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv", "build", ".git")
    for name in (PROJECT, "hooks", "templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "cookiecutter.json", folder)
    git(folder, "init", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--message=First")
    return folder


def test_update_takes_the_new_and_keeps_the_users(template, tmp_path):
    answers = {"project_slug": "mine", "model": "vit", "strategy": "ddp", "accelerator": "gpu"}
    project = cruft.create(str(template), tmp_path, extra_context=answers, no_input=True)
    assert cruft.check(project)
    assert not (project / "models" / "gan.py").exists()
    git(project, "init", "--initial-branch=main")
    config = project / "configs" / "model.yaml"
    config.write_text(config.read_text("utf-8").replace("dim: 64", "dim: 128"), "utf-8")
    git(project, "add", "--all")
    git(project, "commit", "--message=Mine")

    readme = template / PROJECT / "README.md"
    readme.write_text(readme.read_text("utf-8") + "\nNews.\n", "utf-8")
    tables = template / "cookiecutter.json"
    before, vit, after = tables.read_text("utf-8").partition('"name": "vit"')
    after = after.replace('"lr": 0.004', '"lr": 0.003', 1)
    tables.write_text(before + vit + after, "utf-8")
    git(template, "commit", "--all", "--message=Second")
    assert not cruft.check(project)
    assert cruft.update(project, skip_apply_ask=True)

    assert "\nNews.\n" in (project / "README.md").read_text("utf-8")
    assert "dim: 128" in config.read_text("utf-8")
    assert "lr: 0.003" in config.read_text("utf-8")  # a new default, from the template's new table
    assert "strategy: ddp" in (project / "configs" / "trainer.yaml").read_text("utf-8")
    assert not (project / "models" / "gan.py").exists()
