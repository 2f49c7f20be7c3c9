"""Settings that a command takes from its checkpoint, as though a configuration file said so: what
is given on the command line, or in a file that it names, wins, and is named."""

import os
import re
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
from engine.facts import arguments_of, check_classes, plain, same
from engine.parsing import SWAPS, replace_model
from engine.records import flat
from engine.schedules import LENGTHS

OF_THE_MACHINE = ("num_workers", "on_device")  # how samples are loaded, not which
KEPT_BY_FITS = ("best_checkpoint", "early_stopping")
KEPT = "As in the checkpoint, not in the configuration"


def settings_of(saved: dict[str, Any], fit: bool) -> dict[str, Any]:
    """The data module of a checkpoint, if the command line made it; for a fit that goes on also
    what is best, and when it stops early: other metrics cannot be compared with those so far."""
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
    settings = yaml.safe_load(saved.get("settings", "{}")) if fit else {}
    return found | {name: settings[name] for name in KEPT_BY_FITS if name in settings}


def values(config: Namespace, key: str = "") -> dict[str, Any]:
    """Settings by the keys of their options, each as a checkpoint has it."""
    return {name: plain(value) for name, value in flat(config.as_dict(), key).items()}


def differ(there: dict[str, Any], configured: Namespace) -> bool:
    """Whether the configuration says anything else: to read it again takes a moment."""
    now = values(configured)
    return not all(same(now.get(key), value) for key, value in flat(there).items())


@contextmanager
def as_defaults(parser: ArgumentParser, settings: dict[str, Any]) -> Iterator[None]:
    """Has these settings count more than configuration files, and less than the command line."""
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


def model_of(class_path: str, hparams: dict[str, Any], given: Namespace) -> dict[str, Any]:
    """The configuration of a checkpoint's system; a schedule gets the length that is given."""
    if "compile" in hparams:  # says how to run it, not what it is
        hparams["compile"] = given.init_args.get("compile", False)
    wanted, scheduler = given.init_args.get("scheduler"), hparams.get("scheduler")
    if wanted and scheduler and wanted.class_path == scheduler["class_path"]:
        for name in LENGTHS:
            if (length := wanted.get("init_args", {}).get(name)) is not None:
                scheduler["init_args"][name] = length
    return {"class_path": class_path, "init_args": hparams}


def with_model(parser: Any, config: Namespace, saved: dict, checkpoint: Path) -> Namespace:
    """The configuration with a checkpoint's system, if a command line made it; names the rest."""
    hparams = saved.get("hyper_parameters", {})
    if not (class_path := pop_class_path(hparams)):
        return config
    given = config[config.subcommand].model
    check_classes(model := model_of(class_path, hparams, given), checkpoint)
    config = replace_model(parser, config, model)
    now = values(config[config.subcommand].model, "model")
    before = values(given, "model").items()
    classes = {key.rpartition(".")[0] for key in now}  # null leaves one out, or what is not known
    other = [k for k, v in before if (v is not None or k in classes) and now.get(k, v) != v]
    say(KEPT, {key: now[key] for key in other})
    return config


def tell(saved: dict, there: dict[str, Any], configured: Namespace, taken: Namespace) -> None:
    """Names what is as in the checkpoint and not as configured, and what is given otherwise."""
    chosen = flat(yaml.safe_load(saved.get("settings", "{}")))  # without auto
    before, now = values(configured), values(taken)
    kept, given = {}, {}
    for key, value in flat(there).items():
        # What is to be predicted is this command's.
        if now.get(key) not in (plain(value), chosen.get(key)) and key != "data.predict_dir":
            given[key] = f"{now.get(key)} (there {value or repr(value)})"
        elif not same(before.get(key), now.get(key)):
            kept[key] = value
    say(KEPT, kept)
    say("As given, not as in the checkpoint", given)


def tell_others(before: str, now: str) -> None:
    """Names what of the rest is otherwise than in the part of the fit before; both as YAML."""
    there, here = (flat(yaml.safe_load(text)) for text in (before, now))
    told = (*KEPT_BY_FITS, "data", "model", "name", "tags", "trainer.max_", "trainer.log_every")
    other = [k for k in here | there if here.get(k) != there.get(k) and not k.startswith(told)]
    settings = {key: f"{at(here, key)} (there {at(there, key)})" for key in other}
    say("As configured, not as in the checkpoint", settings)


def at(known: dict[str, Any], key: str) -> Any:
    """A setting, or the classes of a list."""
    return known.get(key, [v for k, v in known.items() if re.fullmatch(rf"{key}\.\d+", k)] or None)


def say(title: str, settings: dict[str, Any]) -> None:
    """Prints settings by their keys; where a class is another one, so are its arguments."""
    classes = tuple(f"{key}." for key in settings)
    told = [f"{key}={value}" for key, value in settings.items() if not key.startswith(classes)]
    if told:
        rank_zero_info(f"{title}: {', '.join(told)}")
