"""Run the command line of rendered projects in this process (its imports cost seconds)."""

import contextlib
import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

# Whatever hardware a project is meant for, the tests train on one CPU process.
ONE_CPU = [
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"),
    *("--trainer.strategy=auto", "--trainer.precision=32-true", "--trainer.sync_batchnorm=false"),
    "--data.num_workers=0",
]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
TWO_BATCHES = [f"--trainer.limit_{kind}_batches=2" for kind in ("train", "val", "test", "predict")]
SMALL = [*ONE_CPU, *QUIET, *TWO_BATCHES, "--data.batch_size=8"]


def lies_in(name: str, project: Path) -> bool:
    """Whether a module was imported from a project."""
    file = getattr(sys.modules[name], "__file__", None) or ""
    paths = getattr(sys.modules[name], "__path__", [])
    paths = [file, *(str(p) for p in paths)] if isinstance(paths, Iterable) else [file]
    return any(path.startswith(str(project)) for path in paths)


@contextlib.contextmanager
def inside(project: Path, folder: Path | None = None) -> Iterator[None]:
    """Makes the project's modules importable and `folder` (default: the project) current."""
    argv, here = sys.argv, Path.cwd()
    # Another project's modules have the same names.
    own = {path.stem for path in project.iterdir() if path.suffix == ".py" or path.is_dir()}
    known = [name for name in sys.modules if name.split(".")[0] in own]
    others = {name: sys.modules.pop(name) for name in known if not lies_in(name, project)}
    before = set(sys.modules)
    sys.path.insert(0, str(project))
    os.chdir(folder or project)
    try:
        yield
    finally:
        os.chdir(here)
        sys.argv = argv
        sys.path.remove(str(project))
        for name in set(sys.modules) - before:
            if lies_in(name, project) or folder and lies_in(name, folder):
                del sys.modules[name]
        sys.modules.update(others)


def command(script: str, *arguments: str):
    """What `python script.py arguments` does, inside a project; gives what its `main` returns."""
    sys.argv = [f"{script}.py", *arguments]
    module: ModuleType = importlib.import_module(f"engine.{'cli' if script == 'train' else script}")
    return module.main()


def evaluate(name: str, checkpoint: str | Path, *options: str) -> dict[str, float]:
    """The metrics of `train.py name` on one CPU, inside a project."""
    cli = command("train", name, "--ckpt_path", str(checkpoint), *ONE_CPU, *QUIET, *options)
    return {key: value.item() for key, value in cli.trainer.callback_metrics.items()}


def small_data(data: str, folder: Path) -> list[str]:
    """Makes the small data set of a project's own tests; gives the options that point to it."""
    module = importlib.import_module(f"tests.small_data.{data}")
    folder.mkdir(parents=True, exist_ok=True)
    return module.write(folder)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path("/proc", str(pid), "status").read_text()
    except OSError:  # it has gone, perhaps while this was read
        return False


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {seconds} s"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
