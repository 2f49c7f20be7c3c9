"""Render the template and its hooks in this process (a `cookiecutter` process costs a second)."""

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType

from cookiecutter.main import cookiecutter
from cookiecutter.utils import create_env_with_context

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = {
    name: value
    for name, value in json.loads((ROOT / "cookiecutter.json").read_text("utf-8")).items()
    if not name.startswith("_")
}
CHOICES = {name: value for name, value in PROMPTS.items() if isinstance(value, list)}
DEFAULTS = {
    **{name: value[0] if isinstance(value, list) else value for name, value in PROMPTS.items()},
    "project_slug": "my-lightning-project",
}

_module_numbers = itertools.count()


def render_template(parent: Path, template: Path = ROOT, **answers: str) -> Path:
    """Make a project of these answers (defaults for the rest) under `parent`; return its folder.

    Neither the user's cookiecutter configuration nor the replay folder is read or written.
    """
    config = {
        "replay_dir": str(parent / ".replay"),
        "cookiecutters_dir": str(parent / ".cookiecutters"),
    }
    project = cookiecutter(
        str(template),
        no_input=True,
        extra_context=answers,
        default_config=config,
        output_dir=str(parent),
    )
    return Path(project)


def import_hook(name: str, folder: Path, **answers: object) -> ModuleType:
    """Render `hooks/<name>.py` the way cookiecutter does, into `folder`, and import it."""
    context = {"cookiecutter": {**DEFAULTS, "_template": str(ROOT), **answers}}
    source = (ROOT / "hooks" / f"{name}.py").read_text("utf-8")
    text = create_env_with_context(context).from_string(source).render(**context)
    path = folder / f"{name}_{next(_module_numbers)}.py"
    path.write_text(text, encoding="utf-8", newline="\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
