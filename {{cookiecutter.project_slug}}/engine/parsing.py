"""What LightningCLI's parser lacks: plain errors, and class swaps that forget the old class."""

import os
import re
import sys
from functools import wraps
from inspect import isclass, unwrap
from pkgutil import resolve_name
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from jsonargparse.typing import register_type
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from engine.compat import ModuleInstantiator, make_optional, on_class_swap
from engine.data_module import DataModule
from engine.errors import UserError, nearest, place
from engine.facts import Facts, makes_module, may_lack, same, specs
from engine.help import ALIASES, COMMANDS, WANTED
from engine.records import check_keys

UNKNOWN = re.compile(r"(?:Option|option) '([\w.]+)'|arguments: [-–—]*([\w.-]+)")
# What jsonargparse says about every value that it refuses, whatever the reason.
FILLER = re.compile(
    r"$|Expected a path but|Does not validate|Subtypes:|Errors:|Given value|Problem with given"
    r"|Expected a <class 'NoneType'>|Type .* expects .*:$"
)
# A class path is wanted, and a word was given.
WANTS_CLASS = r"\1 is no class path; a network: --model.network models.networks.NAME.CLASS"
OWN: set[str] = set()  # options of a command that fits, beside those of train.py
SWAPS: dict[str, tuple[str, str]] = {}  # by the new class, the old one and its arguments


class Parser(LightningArgumentParser):
    """Shows what is wrong, and for an unknown key the nearest known one, without the usage."""

    def add_class_arguments(self, theclass: Any, *args: Any, **kwargs: Any) -> list[str]:
        """Does not insist on what the data or the fit will say."""
        if lacks := may_lack(theclass):
            kwargs["linked_targets"] = lacks | (kwargs.get("linked_targets") or set())
        return super().add_class_arguments(theclass, *args, **kwargs)

    def add_function_arguments(self, function: Any, *args: Any, **kwargs: Any) -> list[str]:
        """The same for a function that makes a network."""
        added = super().add_function_arguments(function, *args, **kwargs)
        for name in may_lack(function):
            make_optional(self, name)
        return added

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Namespace:
        self.reads = str(cfg_path)
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except UnicodeDecodeError as error:
            raise UserError(f"{cfg_path} is to be saved as UTF-8: {error}") from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        message = message.replace("<unicode string>", getattr(self, "reads", ""))
        message = message.replace("Unexpected config:", "--config holds no settings:")
        message = message.replace("choose from 'fit'", "choose from 'fit', which trains")
        unknown = UNKNOWN.search(message)
        if unknown and "Did you mean" not in message:
            parser: LightningArgumentParser = getattr(ex, "subcommand_parser", None) or self
            keys = {k.replace("init_args.", "") for k in parser.get_defaults().keys(branches=True)}
            name = unknown[1] or unknown[2]
            name = ALIASES.get(name.replace("-", "_"), name)
            near = nearest(name, OWN) or nearest(name, keys, WANTED)
            plain = [] if self.exit_on_error else sorted(key for key in keys if "." not in key)
            meant = [f"--{near}"] if near else plain
            hint = f". Did you mean {', '.join(meant)}?" if meant else ""
            message += f": it comes first, train.py {name}" if name in COMMANDS else hint
        if os.environ.get("FULL_TRACEBACK") and self.exit_on_error and ex:
            raise ex
        if not self.exit_on_error:  # parses one class; the outer parser may try another type
            super().error(message, ex)
        sys.stderr.write(f"error: {condense(message)}{place(ex)}\n")
        sys.exit(2)


def condense(message: str) -> str:
    """Of jsonargparse's account of all its attempts the key, the reasons and the value."""
    key = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)":', message)))
    account = re.sub(r'Parser key "[^"]+":', "", message)
    account = re.sub(
        r"Problem with given class_path '(.+)':\s*(Option .* accepted)", r"\2 by \1", account
    )
    lines = [line.strip().removeprefix("- ") for line in account.splitlines()]
    reasons = dict.fromkeys(line for line in lines if not FILLER.match(line))
    if not key or not reasons:
        return message
    plain = [line for line in reasons if re.search("Did you mean|are required", line)]
    text = ", or ".join(plain[:1] or reasons)
    text = re.sub(r"Type \S+\[.*?\] expects .*?: |typing\.|\.? Got value: Namespace.*", "", text)
    text = re.sub(r"<class '([^']+)'>", r"\1", text).replace("Expected a ", "expected ")
    text = text.replace("mean --", f"mean --{key}.")
    text = re.sub("expected dot import path string: ([^.]*)$", WANTS_CLASS, text)
    text = re.sub("Unable to load config .null.*", "null, so leave it out, or give settings", text)
    text = re.sub("expected list, or .*", "expected a list, each item after a dash", text)
    given = [line for line in lines if re.match(r"Given value: (?!\[?\w+\(|{)", line)]
    if given and "Got" not in text:
        text += f". {given[0]}"
    return f"{key}: {text}"


def reset_on_swap(parser: Any, old: Namespace | None, new: Namespace) -> None:
    """Forgets the arguments of a class that is swapped: SGD would inherit AdamW's weight decay.
    A child of the class keeps those that it takes, but no defaults, which it may change."""
    if not (old and old.get("init_args")) or old["class_path"] == new["class_path"]:
        return
    kinds = resolve_name(new["class_path"]), resolve_name(old["class_path"])
    given, defaults, known = vars(old["init_args"]), defaults_of(kinds[1]), Namespace()
    if all(map(isclass, kinds)) and issubclass(*kinds):
        known = defaults_of(kinds[0])
    parts = {k: v for k, v in given.items() if k not in known or same(v, defaults.get(k))}
    arguments = dict(Namespace(**parts).items(branches=False))
    dropped = [f"{k}={v}" for k, v in arguments.items() if v not in (None, defaults.get(k))]
    if dropped:
        SWAPS.setdefault(new["class_path"], (old["class_path"], ", ".join(dropped)))
    for key in parts:
        old["init_args"].pop(key)


def defaults_of(kind: Any) -> Namespace:
    parser = ArgumentParser()
    add = parser.add_class_arguments if isclass(kind) else parser.add_function_arguments
    add(kind, fail_untyped=False)
    return parser.get_defaults()


def replace_model(parser: Parser, config: Namespace, model: dict[str, Any]) -> Namespace:
    """The configuration with another model, which is no swap of the user's."""
    swaps = dict(SWAPS)
    config[config.subcommand].model = None
    config = parser.parse_object({config.subcommand: {"model": model}}, config)
    SWAPS.clear()
    SWAPS.update(swaps)
    return config


def name_classes(parser: Any, config: Namespace) -> Namespace:
    """The configuration with classes where the Trainer would take their paths for names."""
    given = config[config.subcommand].trainer
    words = {name: given[name] for name in ("accelerator", "strategy")}
    found = {k: {"class_path": v} for k, v in words.items() if isinstance(v, str) and "." in v}
    return parser.parse_object({config.subcommand: {"trainer": found}}, config) if found else config


def tell_swaps(config: str) -> None:
    """Names the classes that were swapped, of those that ended in the configuration (as YAML)."""
    for new, (old, dropped) in SWAPS.items():
        if f"class_path: {new}\n" in config and f"class_path: {old}\n" not in config:
            rank_zero_info(f"{new} instead of {old}: reset {dropped}")
    SWAPS.clear()


load_yaml = unwrap(get_loader("yaml"))  # not this again, where the module is loaded twice


@wraps(load_yaml)
def load_checked(text: str) -> Any:
    if "\n" in text:
        check_keys(yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return load_yaml(text)


set_loader("yaml", load_checked, (yaml.YAMLError,))
register_type(torch.device)  # Lightning's SWA has one
# What jsonargparse reads as a number, and PyYAML would write without quotes: the text 1e3.
NUMBER = re.compile(r"[-+]?[0-9][0-9_]*\.?[0-9_]*[eE][-+]?[0-9]+$")
yaml.SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789"))
on_class_swap(reset_on_swap)


def hand_on_settings(cli: Any) -> None:
    """Has systems, their parts and data modules made with what the data or a checkpoint says."""
    dump = cli.parser.dump(cli.config, skip_link_targets=False, skip_unset=False)
    cli.config_dump = yaml.safe_load(dump)[cli.subcommand]
    kinds = {"model": LightningModule, "data": LightningDataModule, "part": nn.Module}
    for key, kind in kinds.items():
        cli.parser.add_instantiator(Instantiator(cli, key), kind, subclasses=True)
    for spec in specs(cli.config_dump["model"]):
        made = resolve_name(spec["class_path"])
        if makes_module(made) and not isclass(made):  # a function
            cli.parser.add_instantiator(Instantiator(cli, "part"), made, subclasses=False)


class Instantiator(ModuleInstantiator):
    """Makes the data module first, then networks and system with its facts, kept in checkpoints."""

    def __call__(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        links: dict[str, Any] = {"applied_instantiation_links": {}}
        kwargs.pop("applied_instantiation_links", None)
        if self.key == "data":
            made = super().__call__(class_type, *args, **links, **kwargs)
            # What is predicted may be read as the data of the fit was, if by the same class.
            trained_on = self.cli.saved.get("datamodule_hyper_parameters", {}).get("_class_path")
            class_path = self.cli.config[self.cli.subcommand].data.class_path
            known = isinstance(made, DataModule) and class_path == trained_on
            adopted = known and made.reads_other(self.cli.subcommand)
            if known:
                facts = self.cli.saved[class_type.__qualname__]["facts"]
                made.go_on_with(facts, self.cli.checkpoint, adopted)
            self.cli.facts = Facts(made, self.cli.checkpoint, adopted=adopted)
            return made
        kwargs = self.cli.facts.complete(class_type, kwargs)
        if self.key == "part":
            return class_type(*args, **kwargs)
        self.cli.facts.complete_all(self.cli.config_dump["model"])
        made = super().__call__(class_type, *args, **links, **kwargs)
        if source := kwargs.get("init_from"):
            from engine import weights

            weights.tell_other_data(source, self.cli.facts.known)
        return made

    def __reduce__(self) -> tuple:
        # ddp_spawn pickles the optimizer's factory, which holds this; nothing calls it there.
        return object, ()
