"""Tries a project with the oldest packages that it takes, in an environment of its own.

Run it with `make test-lowest`: the project's own tests, a fit, an export in each format, folds and a
search. It ends at the first command that fails.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "lowest"
PYTHON = str(FOLDER / ".venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python")
ONE_EPOCH = ("--trainer.max_epochs=1", "--trainer.accelerator=cpu")
COMMANDS = (
    ("-m", "pytest", "-q", "tests"),
    ("train.py", "fit", *ONE_EPOCH, "--test_after_fit=true", "--name=lowest"),
    *(("export.py", "lowest", f"--format={kind}") for kind in ("onnx", "pt2", "torchscript")),
    ("crossval.py", "--folds=2", *ONE_EPOCH),
    ("sweep.py", "--trials=1", *ONE_EPOCH),
)


def run(*command: str, folder: Path) -> None:
    print(f"\n$ {' '.join(command)}", flush=True)
    if code := subprocess.run(command, cwd=folder).returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {code}")


def oldest(requirement: str) -> str:
    """`lightning>=2.6.6,<2.7` -> `lightning==2.6.6`."""
    return re.sub(r">=([\w.]+).*", r"==\1", requirement)


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    project = FOLDER / "project"
    answers = ("--no-input", "project_slug=project")
    cookiecutter = (sys.executable, "-m", "cookiecutter", str(ROOT), "-o", str(FOLDER), *answers)
    run(*cookiecutter, folder=ROOT)
    given = (project / "pyproject.toml").read_text(encoding="utf-8").partition("[build-system]")[0]
    packages = {oldest(one) for one in re.findall(r'"([\w[\].-]+>=[^"]+)"', given)}
    run(sys.executable, "-m", "venv", str(FOLDER / ".venv"), folder=FOLDER)
    run(PYTHON, "-m", "pip", "install", "--quiet", *sorted(packages), folder=FOLDER)
    for command in COMMANDS:
        run(PYTHON, *command, folder=project)


if __name__ == "__main__":
    main()
