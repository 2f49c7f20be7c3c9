"""Prints the README's table of questions and answers: `python benchmarks/questions_table.py`.
With `--write` it puts it into README.md, between the lines `<!-- questions-table -->`.

The table comes from `cookiecutter.json`: the prompts, their labels and the choices.
"""

import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import readme_tables
from readme_tables import README  # noqa: F401  For the tests, beside `split`.
from templates import PROMPTS, SETTINGS


def table() -> str:
    lines = ["| question | | answers |", "|---|---|---|"]
    for name, default in PROMPTS.items():
        label = SETTINGS["__prompts__"][name]
        choices = default if isinstance(default, list) else []
        text = label["__prompt__"] if choices else label
        answers = ", ".join(f"`{choice}`" for choice in choices) or "text"
        lines.append(f"| `{name}` | {text} | {answers} |")
    return "\n".join(lines).replace("\\[", "[") + "\n"


split = partial(readme_tables.split, "questions-table")


if __name__ == "__main__":
    readme_tables.print_or_write("questions-table", table, __doc__)
