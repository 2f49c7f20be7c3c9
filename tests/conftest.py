"""Fixtures that every test file shares."""

import gc
import logging
import shutil
from pathlib import Path

import pytest
from templates import import_hook, render_template

# Whole files that `make test-fast` leaves out.
SLOW = (
    *("test_callbacks", "test_crossval", "test_default_run", "test_export", "test_hardware_runs"),
    *("test_loggers", "test_resume", "test_steps", "test_sweep", "test_torchrun", "test_tune"),
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def say_all():
    """Commands that print sentences of their own silence Lightning, for the rest of their process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)


@pytest.fixture(autouse=True, scope="module")
def spare_what_stays():
    """Searching all that libraries and earlier tests have made for garbage takes a quarter of the
    time, again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def render(tmp_path_factory):
    """`render(model="vit")` makes a project and returns its folder, once per set of answers.

    The folder is shared: do not change it. `render(model="vit", copy=True)` gives one of your own.
    """
    projects: dict[frozenset, Path] = {}

    def render(copy: bool = False, **answers: str) -> Path:
        key = frozenset(answers.items())
        if key not in projects:
            projects[key] = render_template(tmp_path_factory.mktemp("project"), **answers)
        if not copy:
            return projects[key]
        own = tmp_path_factory.mktemp("copy") / projects[key].name
        return shutil.copytree(projects[key], own, symlinks=True)

    return render


@pytest.fixture(scope="session")
def hook(tmp_path_factory):
    """`hook("pre_gen_project", model="vit")` is the hook's module, rendered for these answers."""
    folder = tmp_path_factory.mktemp("hooks")

    def hook(name: str, **answers: object):
        return import_hook(name, folder, **answers)

    return hook
