"""Settings that a command takes from its checkpoint, as though a configuration file said so: what is
given on the command line, or in a file that it names, wins, and is named."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from engine.compat import pop_class_path
from engine.facts import arguments_of, same
from engine.parsing import SWAPS, replace_model
from engine.records import flat
from engine.runs import model_of, tell_overruled

OF_THE_MACHINE = ("num_workers", "on_device")  # how samples are loaded, not which


def settings_of(saved: dict[str, Any], fit: bool) -> dict[str, Any]:
    """The data module of a checkpoint, if the command line made it; for a fit that goes on also the
    patience, which is part of the state of early stopping."""
    found: dict[str, Any] = {}
    arguments = dict(saved.get("datamodule_hyper_parameters", {}))
    if class_path := arguments.pop("_class_path", None):
        try:
            known = arguments_of(resolve_name(class_path)).keys() - OF_THE_MACHINE
        except (ImportError, AttributeError) as error:
            rank_zero_info(f"The data of the checkpoint, {class_path}, is not here: {error}")
        else:
            kept = {name: value for name, value in arguments.items() if name in known}
            found["data"] = {"class_path": class_path, "init_args": kept}
    for name, state in saved.get("callbacks", {}).items() if fit else ():
        if name.startswith("EarlyStopping"):
            found["early_stopping"] = {"patience": state["patience"]}
    return found


def differ(there: dict[str, Any], configured: Namespace) -> bool:
    """Whether the configuration says anything else: to read it again takes a moment."""
    now = flat(configured.as_dict())
    return not all(same(now.get(key), value) for key, value in flat(there).items())


@contextmanager
def as_defaults(parser: ArgumentParser, settings: dict[str, Any]) -> Iterator[None]:
    """Has these settings count more than the configuration files, and less than the command line."""
    SWAPS.clear()
    files = parser.default_config_files
    with TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.yaml")
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        parser.default_config_files = [*files, os.fspath(path)]
        try:
            yield
        finally:
            parser.default_config_files = files
            SWAPS.pop(settings.get("data", {}).get("class_path", ""), None)  # no swap of the user's


def with_model(parser: Any, config: Namespace, saved: dict[str, Any]) -> Namespace:
    """The configuration with the system of a checkpoint, if the command line made it."""
    hparams = saved.get("hyper_parameters", {})
    if not (class_path := pop_class_path(hparams)):
        return config
    given = config[config.subcommand].model
    config = replace_model(parser, config, model_of(class_path, hparams, given))
    tell_overruled(given, config[config.subcommand].model)
    return config


def tell(there: dict[str, Any], configured: Namespace, taken: Namespace) -> None:
    """Names what is as in the checkpoint and not as configured, and what is given otherwise."""
    before, now = flat(configured.as_dict()), flat(taken.as_dict())
    kept, given = [], []
    for key, value in flat(there).items():
        if not same(now.get(key), value):
            given.append(f"{key}={now.get(key)} (there {value})")
        elif not same(before.get(key), value):
            kept.append(f"{key}={value}")
    for title, keys in {
        "As in the checkpoint, not in the configuration": kept,
        "As given, not as in the checkpoint": given,
    }.items():
        classes = [key for key in keys if key.startswith("data=")]  # with other arguments
        if keys:
            rank_zero_info(f"{title}: {', '.join(classes or keys)}")
