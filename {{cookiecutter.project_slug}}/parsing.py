"""What LightningCLI's parser lacks: plain errors, and class swaps that forget the old class."""

import difflib
import re
import sys
from inspect import signature
from typing import Any, NoReturn

from jsonargparse import Namespace, _typehints
from lightning.pytorch.cli import LightningArgumentParser, _InstantiatorFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

# What jsonargparse says about every value that it refuses, whatever the reason.
FILLER = re.compile(
    r"$|Expected a path but|Does not validate|Subtypes:|Errors:|Given value|Problem with given"
    r"|Expected a <class 'NoneType'>|Parser key"
)
UNKNOWN = re.compile(r"(?:Option|option|arguments:) '?(?:--)?([\w.]+)")
SWAPS: set[str] = set()  # already reported


def asked_for(subcommands: dict[str, Any]) -> dict[str, Any]:
    """Only the subcommand of the command line, if it has one: each costs the time of a parser."""
    return {name: subcommands[name] for name in sys.argv[1:2] if name in subcommands} or subcommands


class Parser(LightningArgumentParser):
    """Shows what is wrong, and for an unknown key the nearest known one, without the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # parses one class; the outer parser may try another type
            super().error(message, ex)
        if unknown := UNKNOWN.search(message):
            message = next(line for line in message.splitlines() if unknown[0] in line).strip()
            parser: LightningArgumentParser = getattr(ex, "subcommand_parser", None) or self
            keys = {
                key.replace("init_args.", "") for key in parser.get_defaults().keys(branches=True)
            }
            known = {key.rpartition(".")[2]: key for key in sorted(keys, reverse=True)}
            name = unknown[1].rpartition(".")[2]
            if near := difflib.get_close_matches(name, known, n=1):
                message += f"\nIs --{known[near[0]]} meant?"
        else:
            message = condense(message)
        sys.stderr.write(f"error: {message}\n")
        sys.exit(2)


def condense(message: str) -> str:
    """Of jsonargparse's account of all its attempts the key, the reasons and the value."""
    keys = dict.fromkeys(re.findall(r'Parser key "([^"]+)":', message))
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    reasons = dict.fromkeys(line for line in lines if not FILLER.match(line))
    if not keys or not reasons:
        return message
    text = re.sub(r"Type \S+\[.*?\] expects .*?: |typing\.", "", ", or ".join(reasons))
    text = re.sub(r"<class '([^']+)'>", r"\1", text).replace("Expected a ", "expected ")
    value = next((f". {line}" for line in lines if re.match(r"Given value: (?!\w+\()", line)), "")
    return f"{'.'.join(keys)}: {text}{value * ('Got value' not in text)}"


def reset_on_swap(parser: Any, old: Namespace | None, new: Namespace) -> None:
    """Forgets the arguments of a class that is swapped for another. jsonargparse keeps those whose
    names the new class knows too: SGD would inherit AdamW's weight decay."""
    if old and old.get("init_args") and old["class_path"] != new["class_path"]:
        swap = f"{new['class_path']} instead of {old['class_path']}"
        if swap not in SWAPS:  # the parser comes here several times
            dropped = ", ".join(f"{k}={v}" for k, v in old["init_args"].items(branches=False))
            rank_zero_info(f"{swap}: reset {dropped}")
            SWAPS.add(swap)
        old["init_args"] = Namespace()


_typehints.discard_init_args_on_class_path_change = reset_on_swap


def allow_clipping(model: Namespace, trainer: Namespace) -> None:
    """Lightning clips no gradients in mixed precision when the optimizer is fused."""
    optimizer = (model.init_args or {}).get("optimizer")
    if trainer.gradient_clip_val and "mixed" in str(trainer.precision):
        if optimizer and optimizer.init_args.get("fused"):
            optimizer.init_args.fused = False


class Instantiator(_InstantiatorFn):
    """Records for the checkpoint only those facts that the network has an argument for."""

    def __call__(
        self, class_type: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any
    ) -> Any:
        known = signature(type(kwargs["network"])).parameters if "network" in kwargs else {}
        given = applied_instantiation_links.items()
        links = {key: value for key, value in given if key.rpartition(".")[2] in known}
        return super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)

    def __reduce__(self) -> tuple:
        # ddp_spawn pickles the optimizer's factory, which holds this; nothing calls it there.
        return object, ()
