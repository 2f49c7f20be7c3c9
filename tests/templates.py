"""Render the template and its hooks in this process (a `cookiecutter` process costs a second)."""

import importlib.util
import itertools
import json
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

from cookiecutter.main import cookiecutter
from cookiecutter.utils import create_env_with_context

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
PROMPTS = {name: value for name, value in SETTINGS.items() if not name.startswith("_")}
CHOICES = {name: value for name, value in PROMPTS.items() if isinstance(value, list)}
DEFAULTS = {
    **{name: value[0] if isinstance(value, list) else value for name, value in PROMPTS.items()},
    "project_slug": "my-lightning-project",
}
# The rows of the tables, by name. What the tests go through comes from here.
DATA, MODELS, SYSTEMS, LOGGERS = (
    {row["name"]: row for row in SETTINGS[table]}
    for table in ("_data", "_models", "_systems", "_loggers")
)


def row_of(data: str, model: str) -> dict:
    """The row of a model, as it is on this data."""
    found = MODELS[model]
    for other in found.get("on", ()):
        known = [*other.get("data", ()), *other.get("modalities", ())]
        if {data, DATA[data]["modality"]} & {*known}:
            found = {**found, **other}
    return found


# All pairs of data and model that go together.
CELLS = [
    (data, model)
    for data in DATA
    for model in MODELS
    if DATA[data]["modality"] in MODELS[model]["modalities"]
]


# The cells of each network.
NETWORKS: dict[str, list[tuple[str, str]]] = {}
for _cell in CELLS:
    NETWORKS.setdefault(row_of(*_cell)["name"], []).append(_cell)


def each_once(names: Collection[str] = DATA) -> list[tuple[str, str]]:
    """Some of the cells: each network on one of these data sets, and each of them at least once."""
    possible = [[cell for cell in cells if cell[0] in names] for cells in NETWORKS.values()]
    found = [cells[number % len(cells)] for number, cells in enumerate(possible)]
    missing = {*names} - {data for data, _ in found}
    return found + [(data, DATA[data]["model"]) for data in DATA if data in missing]


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
    tables = {name: SETTINGS[name] for name in SETTINGS if name.startswith("_")}
    context = {"cookiecutter": {**DEFAULTS, **tables, "_template": str(ROOT), **answers}}
    source = (ROOT / "hooks" / f"{name}.py").read_text("utf-8")
    text = create_env_with_context(context).from_string(source).render(**context)
    path = folder / f"{name}_{next(_module_numbers)}.py"
    path.write_text(text, encoding="utf-8", newline="\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
