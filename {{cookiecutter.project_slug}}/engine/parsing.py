"""What LightningCLI's parser lacks: plain errors, and class swaps that forget the old class."""

import difflib
import re
import sys
from inspect import Parameter, signature
from pkgutil import resolve_name
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from engine.compat import ModuleInstantiator, on_class_swap
from engine.errors import UserError, place
from engine.runs import FACTS

UNKNOWN = re.compile(r"(?:Option|option) '([\w.]+)'|arguments: --([\w.]+)")
# What jsonargparse says about every value that it refuses, whatever the reason.
FILLER = re.compile(
    r"$|Expected a path but|Does not validate|Subtypes:|Errors:|Given value|Problem with given"
    r"|Expected a <class 'NoneType'>|Parser key"
)
# Its failure with a function in the place of a class, such as torchvision.models.resnet18.
FUNCTION = re.compile(r"SignatureArguments\.add_function_arguments\(\) got an .*'linked_targets'")
SWAPS: dict[str, tuple[str, str]] = {}  # by the new class, the old one and its arguments


def asked_for(subcommands: dict[str, Any]) -> dict[str, Any]:
    """Only the subcommand of the command line, if it has one: each costs the time of a parser."""
    return {name: subcommands[name] for name in sys.argv[1:2] if name in subcommands} or subcommands


class Parser(LightningArgumentParser):
    """Shows what is wrong, and for an unknown key the nearest known one, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = UNKNOWN.search(message)
        if unknown and "Did you mean" not in message:
            parser: LightningArgumentParser = getattr(ex, "subcommand_parser", None) or self
            keys = parser.get_defaults().keys(branches=True)
            near = nearest(unknown[1] or unknown[2], {k.replace("init_args.", "") for k in keys})
            message += f". Did you mean --{near}?" if near else ""
        if not self.exit_on_error:  # parses one class; the outer parser may try another type
            super().error(message, ex)
        sys.stderr.write(f"error: {condense(message)}{place(ex)}\n")
        sys.exit(2)


def nearest(unknown: str, keys: set[str]) -> str | None:
    """The known key that is most like an unknown one, in the same group if there is such a group."""
    prefix = ""
    for part in unknown.split("."):
        names = {key.removeprefix(prefix).split(".")[0] for key in keys if key.startswith(prefix)}
        if part not in names:
            break
        prefix += f"{part}."
    if near := difflib.get_close_matches(part, sorted(names), n=1):
        whole = prefix + near[0] + unknown[len(prefix + part) :]
        return whole if whole in keys else prefix + near[0]
    leaves = {key.rpartition(".")[2]: key for key in sorted(keys, reverse=True)}
    near = difflib.get_close_matches(part, leaves, n=1)
    return leaves[near[0]] if near and not prefix else None


def condense(message: str) -> str:
    """Of jsonargparse's account of all its attempts the key, the reasons and the value."""
    key = ".".join(dict.fromkeys(re.findall(r'Parser key "([^"]+)":', message)))
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    reasons = dict.fromkeys(line for line in lines if not FILLER.match(line))
    if not key or not reasons:
        return message
    plain = [line for line in reasons if re.search("Did you mean|are required", line)]
    text = ", or ".join(plain[:1] or reasons)
    text = re.sub(r"Type \S+\[.*?\] expects .*?: |typing\.|\.? Got value: Namespace.*", "", text)
    text = FUNCTION.sub("expected a class, not a function", text)
    text = re.sub(r"<class '([^']+)'>", r"\1", text).replace("Expected a ", "expected ")
    value = next(
        (f". {line}" for line in lines if re.match(r"Given value: (?!\[?\w+\(|{)", line)), ""
    )
    return f"{key}: {text.replace('mean --', f'mean --{key}.')}{value * ('Got' not in text)}"


def reset_on_swap(parser: Any, old: Namespace | None, new: Namespace) -> None:
    """Forgets the arguments of a class that is swapped for another. jsonargparse keeps those whose
    names the new class knows too: SGD would inherit AdamW's weight decay."""
    if old and old.get("init_args") and old["class_path"] != new["class_path"]:
        arguments = old["init_args"].items(branches=False)
        dropped = ", ".join(f"{k}={v}" for k, v in arguments if k not in FACTS)
        SWAPS.setdefault(new["class_path"], (old["class_path"], dropped))
        old["init_args"] = Namespace()


def tell_swaps(config: str) -> None:
    """Names the classes that were swapped, of those that ended in the configuration (as YAML)."""
    for new, (old, dropped) in SWAPS.items():
        if f"class_path: {new}\n" in config and f"class_path: {old}\n" not in config:
            rank_zero_info(f"{new} instead of {old}: reset {dropped}")
    SWAPS.clear()


register_type(torch.device)  # Lightning's SWA has one
on_class_swap(reset_on_swap)


def check_facts(data: Any, network: Namespace, cli: Any) -> None:
    """Checks that the data module has what the network must be told, and that neither a checkpoint
    nor an option says otherwise. Where the data cannot say, the checkpoint does."""
    name = f"{type(data).__module__}.{type(data).__qualname__}"
    arguments = signature(resolve_name(network.class_path)).parameters
    for fact in FACTS:
        given = getattr(data, fact, cli.trained_on.get(fact))
        given = tuple(given) if isinstance(given, list) else given
        if fact in cli.trained_on:
            trained = cli.trained_on[fact]
            if given != trained and not cli.adapts:
                raise UserError(
                    f"{cli.checkpoint} was trained with {fact} {trained}, "
                    f"but this data has {fact} {given}; choose data or a checkpoint that fit"
                )
            if not hasattr(data, fact):
                setattr(data, fact, trained)
        elif fact in arguments and arguments[fact].default is Parameter.empty:
            option = network.init_args[fact]
            if not hasattr(data, fact):
                raise UserError(
                    f"{name} has no {fact}, which {network.class_path} takes; give it that attribute"
                )
            if option not in (None, given):
                raise UserError(
                    f"model.network.{fact} is {option}, but the network takes that of the data, and "
                    f"{name} has {given}; leave the option out"
                )


def hand_on_settings(cli: Any) -> None:
    """Has systems and data modules made with what their checkpoint is to say of them."""
    dump = cli.parser.dump(cli.config, skip_link_targets=False, skip_unset=False)
    cli.config_dump = yaml.safe_load(dump)[cli.subcommand]
    network = cli.config_dump["model"].get("init_args", {}).get("network")
    if network:  # Lightning fails where all arguments come from the data
        network.setdefault("init_args", {})
    for key, kind in (("model", LightningModule), ("data", LightningDataModule)):
        cli.parser.add_instantiator(Instantiator(cli, key), kind, subclasses=True)


class Instantiator(ModuleInstantiator):
    """Records for the checkpoint only those facts that the network has an argument for."""

    def __call__(
        self, class_type: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any
    ) -> Any:
        known = signature(type(kwargs["network"])).parameters if "network" in kwargs else {}
        given = applied_instantiation_links.items()
        links = {key: value for key, value in given if key.rpartition(".")[2] in known}
        made = super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)
        if self.key == "data":
            model = self.cli.config[self.cli.subcommand].model.init_args or {}
            if model.get("network"):
                check_facts(made, model["network"], self.cli)
        return made

    def __reduce__(self) -> tuple:
        # ddp_spawn pickles the optimizer's factory, which holds this; nothing calls it there.
        return object, ()
