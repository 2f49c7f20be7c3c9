"""Draws the pictures of the README: `python benchmarks/pictures.py` writes docs/prompts.svg, the first
questions as a terminal shows them, and docs/run.svg, what `python train.py` prints by default.
"""

import os
import pty
import select
import subprocess
import sys
import tempfile
from io import StringIO
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100  # columns
FIRST_LEFT_OUT = "[8/"  # of the questions


def draw(name: str, title: str, text: str) -> None:
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(Text.from_ansi(text))
    console.save_svg(str(ROOT / "docs" / name), title=title)


def answered_with_enter(command: list[str]) -> str:
    """What a terminal shows of a command that is answered with Enter whenever it waits."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["COLUMNS"] = str(WIDTH)
        os.execv(command[0], command)
    shown = b""
    while True:
        if not select.select([terminal], [], [], 2.0)[0]:
            os.write(terminal, b"\n")
            continue
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the command has ended
            break
    os.waitpid(pid, 0)
    return shown.decode().replace("\r\n", "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cookiecutter = [sys.executable, "-m", "cookiecutter", str(ROOT), "-o", folder]
        lines = answered_with_enter(cookiecutter).splitlines()
        shown = takewhile(lambda line: FIRST_LEFT_OUT not in Text.from_ansi(line).plain, lines)
        title = "cookiecutter gh:org/cookiecutter-lightning"
        draw("prompts.svg", title, "\n".join(shown))
        [project] = [path.parent for path in Path(folder).glob("*/train.py")]
        command = [sys.executable, "train.py"]
        run = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
        draw("run.svg", "python train.py", run.stderr + run.stdout)


if __name__ == "__main__":
    main()
