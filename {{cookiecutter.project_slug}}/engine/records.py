"""The runs under `logs/`, and what is written down of each in `run.yaml`."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from engine.errors import UserError
from engine.files import written_whole


def read_yaml(path: Path) -> Any:
    """What a YAML file says, by the fast parser if it is there; nothing, if there is no file."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader) if path.exists() else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: mend it, or move its folder away. {error}") from error


def check_keys(node: Any) -> None:
    """Raises a YAMLError if a key of a mapping in YAML stands twice: the first would not count."""
    found: set[str] = set()
    for pair in node.value if isinstance(node, yaml.CollectionNode) else ():
        key, value = pair if isinstance(node, yaml.MappingNode) else (None, pair)
        if key and key.value in found:
            line = key.start_mark.line + 1
            raise yaml.YAMLError(f"{key.value} stands twice, again in line {line}: make it one")
        found |= {key.value} if key else set()
        check_keys(value)


def read_record(run: Path) -> list[dict[str, Any]]:
    """What `run.yaml` says of each part of a run; a kill may have left it empty."""
    record = read_yaml(path := run / "run.yaml") or []
    if not (isinstance(record, list) and all(isinstance(part, dict) for part in record)):
        raise UserError(f"{path} is damaged, since it is no list of parts: move its folder away")
    return record


def write_record(run: Path, record: list[dict[str, Any]]) -> None:
    with written_whole(run / "run.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")


def config_of(run: Path) -> Path:
    """The settings of a run: those of its last part that had others than the one before."""
    found = {number_of(path.with_suffix("")): path for path in run.glob("config_*.yaml")}
    found[-1] = run / "config.yaml"
    return found[max(found)]


def number_of(run: Path) -> int:
    """That of `version_3` or `fold_3`; -1 if there is none."""
    digits = run.name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1


def root_of(run: Path) -> Path:
    """The folder of all runs: of a part of a cross-validation that of the whole."""
    return run.parent.parent if run.parent.name.startswith("version_") else run.parent


def all_runs(root: Path) -> list[Path]:
    """The run folders under `root`, the oldest first; each before the folds or seeds in it."""
    found = []
    renamed = {path.parent for path in root.glob("*/run.yaml")}
    renamed |= {path.parents[1] for path in root.glob("*/*/run.yaml")}
    for run in sorted({*root.glob("version_*"), *renamed}, key=number_of):
        parts = (path.parent for path in run.glob("*/run.yaml"))
        found += [run, *sorted(parts, key=number_of)]
    return found


def runs_named(name: str, root: Path) -> list[Path]:
    """The runs under `root` that were given this name, the newest first."""
    runs = reversed(all_runs(root))
    return [run for run in runs if any(part.get("name") == name for part in read_record(run))]


def label_of(config: Namespace, record: list[dict[str, Any]]) -> tuple[str | None, list[str]]:
    """The name and the tags of a run: those that are given, or those of its record."""
    if config.name in ("best", "last") or str(config.name).startswith("version_"):
        raise UserError(f"--name {config.name}: --ckpt_path {config.name} means another run's")
    before: dict[str, Any] = record[-1] if record else {}
    return config.name or before.get("name"), tags_of(config.tags or before.get("tags"))


def tags_of(given: str | list[str] | None) -> list[str]:
    """Tags as they are given: a list, or with commas between them."""
    return given.split(",") if isinstance(given, str) else given or []


def filled(config: str, values: dict[str, Any]) -> str:
    """A configuration, as YAML, with other values, by their keys."""
    if not values:
        return config
    settings = yaml.safe_load(config)
    for key, value in values.items():
        *groups, name = key.split(".")
        place = settings
        for group in groups:
            place = place[group]
        place[name] = value
    versions = [line for line in config.splitlines(keepends=True) if line.startswith("#")]
    return "".join(versions) + yaml.safe_dump(settings, sort_keys=False)


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Settings by the keys that options have; a class by that of what it is."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key.replace(".init_args", "").removesuffix(".class_path"): value}
    parts = [flat(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()]
    return {name: item for part in parts for name, item in part.items()}
