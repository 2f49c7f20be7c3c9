"""Renders the default answers into build/demo, trains there and evaluates the best checkpoint.

Run it with `make demo`. The test accuracy is the last line.
"""

import filecmp
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "build" / "demo"
INSTALLED = Path(sys.prefix, "demo.toml")  # the pyproject.toml whose dependencies are installed


def run(*command: str, folder: Path = DEMO) -> str:
    """Runs a command, shows what it prints and returns it."""
    print(f"\n$ {' '.join(command)}", flush=True)
    lines = []
    command = (sys.executable, *command[1:]) if command[0] == "python" else command
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}")
    return "".join(lines)


def main() -> None:
    shutil.rmtree(DEMO, ignore_errors=True)
    answers = ("--no-input", "project_name=Demo", "project_slug=demo")
    run("python", "-m", "cookiecutter", str(ROOT), "-o", "build", *answers, folder=ROOT)
    pyproject = DEMO / "pyproject.toml"
    if not (INSTALLED.exists() and filecmp.cmp(pyproject, INSTALLED, shallow=False)):
        run("python", "-m", "pip", "install", "--quiet", "--editable", ".")
        shutil.copyfile(pyproject, INSTALLED)

    run("python", "train.py")
    output = run("python", "train.py", "test", "--ckpt_path", "best")
    logs = DEMO.relative_to(ROOT) / "logs"
    [metrics, *_] = sorted((DEMO / "logs" / "version_0").glob("events.out.tfevents.*"))
    tensorboard = Path(sys.executable).parent / "tensorboard"
    print(f"\nRun:           {logs / 'version_0'}")
    print(f"Metrics:       {metrics.relative_to(ROOT)}")
    print(f"TensorBoard:   {tensorboard} --logdir {logs}")
    accuracy = float(re.search(r"test/acc\W+([\d.]+)", output)[1])
    print(f"Test accuracy: {accuracy:.4f}")


if __name__ == "__main__":
    main()
