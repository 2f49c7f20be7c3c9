"""Prints the README's table of questions and answers: `python benchmarks/questions_table.py`.
With `--write` it puts it into README.md, between the lines `<!-- questions-table -->`.

The table comes from `cookiecutter.json`: the prompts, their labels and the choices.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
sys.path.insert(0, str(ROOT / "tests"))
from templates import PROMPTS, SETTINGS

MARKERS = ("<!-- questions-table -->\n", "<!-- /questions-table -->")


def table() -> str:
    lines = ["| question | | answers |", "|---|---|---|"]
    for name, default in PROMPTS.items():
        label = SETTINGS["__prompts__"][name]
        choices = default if isinstance(default, list) else []
        text = label["__prompt__"] if choices else label
        answers = ", ".join(f"`{choice}`" for choice in choices) or "text"
        lines.append(f"| `{name}` | {text} | {answers} |")
    return "\n".join(lines).replace("\\[", "[") + "\n"


def split(readme: str) -> tuple[str, str, str]:
    """The README before, in and after the table."""
    before, rest = readme.split(MARKERS[0])
    inside, after = rest.split(MARKERS[1])
    return before + MARKERS[0], inside, MARKERS[1] + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    if not parser.parse_args().write:
        print(table(), end="")
        return
    before, _, after = split(README.read_text(encoding="utf-8"))
    README.write_text(before + table() + after, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
