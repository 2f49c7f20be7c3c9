"""What an addition to the template has forgotten, in sentences that name the place.

Each data set, model, system, modality and logger is a row of a table in `cookiecutter.json`.
CONTRIBUTING.md says how to add one.
"""

import ast
import json
from collections import Counter
from pathlib import Path

PROJECT = "{{cookiecutter.project_slug}}"
# The keys of the rows of each table: those that each row has, those that some have.
KEYS: dict[str, tuple[set[str], set[str]]] = {
    "_modalities": (
        {"name", "example", "readme"},
        {"batch_sizes", "files", "ordered", "packages", "preparation"},
    ),
    "_data": (
        {"name", "class", "modality", "model", "arguments", "augments", "log_every_n_steps"},
        {"by_size", "first", "files", "own_val", "packages", "readme"},
    ),
    "_systems": (
        {"name", "class", "optimizers", "optimizer"},
        {"callbacks", "sweep_metric", "sweep_goal", "files", "packages", "readme"},
    ),
    "_models": (
        {"name", "class", "system", "modalities", "lr", "augment", "max_epochs", "batch_norm"},
        {"arguments", "system_arguments", "scheduler_arguments", "optimizer", "on"}
        | {"fsdp_blocks", "trainer", "files", "packages"},
    ),
    "_loggers": ({"name", "class_path"}, {"arguments", "files", "packages", "readme"}),
}
KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
CHOICES = {"_data": "data", "_models": "model", "_loggers": "logger"}
# Which file of a project holds the class of a row, and folders that hold files of rows alone.
CLASSES = {"_data": "data/{}.py", "_systems": "models/{}.py", "_models": "models/networks/{}.py"}
FOLDERS = ("models/networks", "tests/small_data")
# Keys that name a row of another table.
REFERENCES = {
    ("_data", "modality"): "_modalities",
    ("_data", "model"): "_models",
    ("_models", "system"): "_systems",
    ("_models", "modalities"): "_modalities",
}


def gaps(template: Path) -> list[str]:
    """What is missing or too much in the tables and files of a template; empty if nothing is."""
    text, twice = (template / "cookiecutter.json").read_text("utf-8"), []

    def unique(pairs: list) -> dict:
        names = [name for name, _ in pairs]
        place = f"cookiecutter.json: {dict(pairs).get('name', 'an object')} has twice the key"
        twice.extend(f"{place} {name}" for name in {*names} if names.count(name) > 1)
        return dict(pairs)

    settings, project = json.loads(text, object_pairs_hook=unique), template / PROJECT
    return [
        *twice,
        *gaps_in_choices(settings),
        *gaps_in_rows(settings),
        *gaps_in_kinds(settings),
        *gaps_in_files(settings, project),
    ]


def gaps_in_choices(settings: dict) -> list[str]:
    found = []
    for table, prompt in CHOICES.items():
        choices = [choice for choice in settings[prompt] if choice != "auto"]
        names = [row["name"] for row in settings[table]]
        for name in names:
            if name not in choices:
                found.append(f"cookiecutter.json: {prompt} does not offer {name}, a row of {table}")
        for choice in choices:
            if choice not in names:
                found.append(f"cookiecutter.json: {table} has no row for {prompt}={choice}")
        for choice in settings[prompt]:
            if choice not in settings["__prompts__"][prompt]:
                found.append(f"cookiecutter.json: __prompts__ has no label for {prompt}={choice}")
        known = {*settings[prompt], *names, "__prompt__"}
        for label in sorted(settings["__prompts__"][prompt].keys() - known):
            found.append(f"cookiecutter.json: __prompts__ has a label for no {prompt}: {label}")
        if not found and names != choices:
            found.append(
                f"cookiecutter.json: {table} has a row twice, or another order than the choices"
            )
    return found


def gaps_in_rows(settings: dict) -> list[str]:
    found = []
    for table, (required, optional) in KEYS.items():
        for row in settings[table]:
            place = f"cookiecutter.json: the row {row.get('name')} of {table}"
            found += [f"{place} lacks the key {key}" for key in sorted(required - row.keys())]
            unknown = sorted(row.keys() - required - optional)
            found += [f"{place} has a key that nothing reads: {key}" for key in unknown]
            for other in row.get("on", ()):
                unknown = sorted(other.keys() - KEYS[table][0] - KEYS[table][1] - {"data"})
                found += [f"{place} has a key under `on` that nothing reads: {k}" for k in unknown]
                for key, named in (("data", "_data"), ("modalities", "_modalities")):
                    unknown = {*other.get(key, ())} - {one["name"] for one in settings[named]}
                    found += [
                        f"{place} has under `on` {key} {name}, which is no row of {named}"
                        for name in sorted(unknown)
                    ]
                if other.get("system", row.get("system")) not in {
                    s["name"] for s in settings["_systems"]
                }:
                    found.append(f"{place} has a system under `on` that is no row of _systems")
    for (table, key), other in REFERENCES.items():
        names = {row["name"] for row in settings[other]}
        for row in settings[table]:
            value = row.get(key, [])
            for name in [value] if isinstance(value, str) else value:
                if name not in names:
                    place = f"cookiecutter.json: {key} in the row {row['name']} of {table}"
                    found.append(f"{place} is {name}, which is no row of {other}")
    models = {row["name"]: row for row in settings["_models"]}
    for row in settings["_data"]:
        model, modality = models.get(row.get("model"), {}), row.get("modality")
        if modality not in model.get("modalities", [modality]):
            place = f"cookiecutter.json: model in the row {row['name']} of _data"
            found.append(f"{place} is {row['model']}, whose `modalities` lack {modality}")
    return found


def gaps_in_kinds(settings: dict) -> list[str]:
    """A text where other rows have a list, and the like: each of its letters would be a line."""
    found, kinds = [], {}
    for table in KEYS:
        for row in settings[table]:
            for part in (row, *row.get("on", ())):
                for key, value in part.items():
                    place = f"cookiecutter.json: {key} in the row {row['name']} of {table}"
                    kinds.setdefault(key, []).append((place, KINDS.get(type(value), "null")))
    for pairs in kinds.values():
        usual, _ = Counter(kind for _, kind in pairs).most_common(1)[0]
        found += [f"{place} is {kind}, not {usual}" for place, kind in pairs if kind != usual]
    return found


def variants(rows: list[dict]) -> list[dict]:
    """The rows, and what they are on other data, without repetition."""
    found = [{**row, **other} for row in rows for other in ({}, *row.get("on", ()))]
    keys = ("name", "class", "files")
    return list({str([row.get(key) for key in keys]): row for row in found}.values())


def gaps_in_files(settings: dict, project: Path) -> list[str]:
    found, named = [], set()
    for table in KEYS:
        for row in variants(settings[table]):
            place = f"the row {row['name']} of {table} in cookiecutter.json"
            files = list(row.get("files", ()))
            if table in CLASSES:
                source = CLASSES[table].format(row["name"])
                files.append(source)
                path = project / source
                if path.is_file() and row.get("class") not in classes_of(path):
                    found.append(f"{source} has no class {row.get('class')}, which {place} names")
            if table == "_modalities":
                for file in {f"data/{row['name']}.py", row.get("preparation", *files[:1])}:
                    if file not in files:
                        found.append(f"{file} is not among the `files` of {place}")
            if table == "_data":
                files.append(f"tests/small_data/{row['name']}.py")
            found += [
                f"there is no {file}, which {place} needs"
                for file in files
                if not (project / file).is_file()
            ]
            named |= {*files}
    for folder in FOLDERS:
        for path in sorted((project / folder).glob("*.py")):
            name = f"{folder}/{path.name}"
            if not path.stem.startswith("__") and name not in named:
                found.append(f"{name} belongs to no row of the tables in cookiecutter.json")
    return found


def classes_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
