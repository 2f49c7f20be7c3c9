"""What the commands take beside what nobody can save: the imports, and writing the files.

    python benchmarks/startup.py [train] [generate]

Prints a Markdown table: the best of some runs that take turns, by the clock and by CPU time, the
latter with what the process waited for left out. Ratios and goals are of the CPU time.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from templates import render_template

PRINT_CONFIG = "`train.py fit --print_config`"
FAST_DEV_RUN = "`train.py fit --trainer.fast_dev_run true`"
COMPARE = "`compare.py --help`"
GENERATE = "`cookiecutter --no-input`"
PLAIN = "as many files, no hooks"
Times = dict[str, tuple[float, float]]  # seconds: by the clock, of CPU time


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds of a command by the clock, and of CPU time with its children's."""
    start, before = time.perf_counter(), os.times()
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    clock, after = time.perf_counter() - start, os.times()
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    cpu = after.children_user + after.children_system
    return clock, cpu - before.children_user - before.children_system


def race(commands: dict[str, tuple[list[str], Path]], rounds: int) -> Times:
    """The best times of each command, after one run to fill the caches."""
    for command in commands.values():
        run(*command)
    best: Times = {}
    for _ in range(rounds):
        for name, command in commands.items():
            times = run(*command)
            best[name] = tuple(map(min, times, best.get(name, times)))
    return best


def row(times: Times, job: str, against: str, goal: str) -> None:
    (clock, cpu), (base_clock, base_cpu) = times[job], times[against]
    print(
        f"| {job} | {clock:.2f} | {cpu:.2f} | {against} | {base_clock:.2f} | {base_cpu:.2f} "
        f"| {cpu / base_cpu:.2f} | {goal} |",
        flush=True,
    )


def train(folder: Path) -> None:
    project = render_template(folder, project_slug="project")
    imports = "import lightning.pytorch.cli"
    times = race(
        {
            f"`{imports}`": (["-c", imports], project),
            PRINT_CONFIG: (["train.py", "fit", "--print_config"], project),
            FAST_DEV_RUN: (["train.py", "fit", "--trainer.fast_dev_run", "true"], project),
            COMPARE: (["compare.py", "--help"], project),
        },
        rounds=4,
    )
    row(times, PRINT_CONFIG, f"`{imports}`", "<= 1.1")
    row(times, FAST_DEV_RUN, f"`{imports}`", "<= 1.3")
    row(times, COMPARE, f"`{imports}`", "<= 0.2")


def generate(folder: Path) -> None:
    """The template against one of as many files that it has made, without hooks."""
    plain = folder / "plain"
    shutil.copytree(
        render_template(folder, project_slug="rendered"), plain / "{{cookiecutter.slug}}"
    )
    for path in (plain / "{{cookiecutter.slug}}").rglob("*"):
        if path.is_file() and "{{" in (text := path.read_text(encoding="utf-8")):
            path.write_text("{% raw %}" + text + "{% endraw %}", encoding="utf-8")
    (plain / "cookiecutter.json").write_text(json.dumps({"slug": "made"}))
    arguments = ["-m", "cookiecutter", "--no-input", "-f"]
    times = race(
        {
            PLAIN: ([*arguments, str(plain)], folder),
            GENERATE: ([*arguments, str(ROOT), "project_slug=ours"], folder),
        },
        rounds=12,
    )
    row(times, GENERATE, PLAIN, "<= 1.5, <= 1.5 s")


def main() -> None:
    print(
        "| command | s | CPU s | against | s | CPU s | ratio | goal |\n|---|---|---|---|---|---|---|---|"
    )
    for job in (train, generate):
        if job.__name__ in sys.argv[1:] or len(sys.argv) == 1:
            with tempfile.TemporaryDirectory() as folder:
                job(Path(folder))


if __name__ == "__main__":
    main()
