"""What the data says, and networks and systems take by name: no number is written twice."""

import re
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from inspect import Parameter, isbuiltin, isclass, signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

from lightning.pytorch import LightningDataModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from engine.errors import UserError

PLAIN = (bool, int, float, str, list, tuple, dict)
SIZE = re.compile(r"(width|depth|dims?|heads|kernel|sizes?)$")  # means nothing below 1


def facts_of(data: Any) -> dict[str, Any]:
    """What a data module publishes as `facts`; of one of another make, its own plain attributes."""
    if isinstance(facts := getattr(data, "facts", None), dict):
        return facts
    own = (name for name in dir(data) if not (name[0] == "_" or hasattr(LightningDataModule, name)))
    found = {name: getattr(data, name, None) for name in own}
    return {name: value for name, value in found.items() if isinstance(value, PLAIN)}


def parameters_of(kind: Any) -> dict[str, Parameter]:
    """The parameters of a class by name, with those that it hands on to its bases."""
    found: dict[str, Parameter] = {}
    for one in kind.__mro__ if isclass(kind) else [kind]:
        if isclass(one) and "__init__" not in vars(one):
            continue
        parameters = list(signature(one).parameters.values())
        own = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found = {p.name: p for p in own} | found
        if len(parameters) == len(own) or one is nn.Module:
            break
    return found


def arguments_of(kind: Any) -> dict[str, Any]:
    """The same with their defaults (`Parameter.empty` where there is none)."""
    return {name: parameter.default for name, parameter in parameters_of(kind).items()}


def refuse_null(settings: dict[str, Any], groups: dict[str, Any]) -> None:
    """Raises a UserError where a setting, in a group of these classes or of a class by its path, is
    null but has another default and no None in its type: the parser lets it pass."""
    made = [(settings[name], kind, f"{name}.") for name, kind in groups.items()]
    for spec in specs(settings):
        kind = resolve_name(spec["class_path"])
        made.append((spec.get("init_args") or {}, kind, f"{kind.__name__}: "))
    for values, kind, place in made:
        if values is None:
            raise UserError(f"{place[:-1]} is null: leave it out, or give its settings")
        known = parameters_of(kind)
        for name in [n for n, value in values.items() if value is None and n in known]:
            default, types = known[name].default, str(known[name].annotation)
            may_be = default is None or default is Parameter.empty
            if not (may_be or re.search("None|Optional|Any|empty", types)):
                means = getattr(default, "__name__", default)
                raise UserError(f"{place}{name} is null: leave it out, which means {means}")


def path_of(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__name__ if isbuiltin(kind) else kind.__qualname__}"


def makes_module(kind: Any) -> bool:
    """Whether it is a class of modules, or a function whose annotation says that it returns one."""
    if not isclass(kind) and callable(kind):
        with suppress(NameError, TypeError):
            kind = get_type_hints(kind).get("return")
    return isclass(kind) and issubclass(kind, nn.Module)


def may_lack(kind: Any) -> set[str]:
    """The arguments that a configuration may leave out, since something else knows them: of a
    network or system the facts, of a schedule the length of the fit, of a logger the run folder."""
    if makes_module(kind):
        return {name for name, value in arguments_of(kind).items() if value is Parameter.empty}
    known = (LRScheduler, "T_max"), (CSVLogger, "save_dir"), (TensorBoardLogger, "save_dir")
    return {name for base, name in known if isclass(kind) and issubclass(kind, base)}


def check_classes(settings: dict[str, Any], checkpoint: Any) -> None:
    """Refuses a checkpoint of which a class, or an argument, is gone, or one more is needed now."""
    for spec in specs(settings):
        path = spec["class_path"]
        try:
            kind = resolve_name(path)
        except (ModuleNotFoundError, AttributeError) as error:
            if str(error.name) not in path:  # but something that the module needs
                raise
            raise UserError(
                f"{checkpoint} was fitted with {path}, which is not here ({error}): give it that "
                f"name again, or what it has become: {path.rpartition('.')[2]} = NEW_NAME in a "
                "file there"
            ) from error
        given, own = spec.get("init_args") or {}, signature(kind).parameters.values()
        takes_all = any(p.kind is p.VAR_KEYWORD for p in own)
        if (gone := given.keys() - arguments_of(kind)) and not takes_all:
            raise UserError(
                f"{checkpoint} was fitted with {', '.join(sorted(gone))} of {path}, which takes "
                f"that no more: let it, or start a fit with --model.init_from {checkpoint}"
            )
        named = (p.name for p in own if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)
        if makes_module(kind) and (needed := set(named) - given.keys()):
            raise UserError(
                f"{checkpoint} was fitted without {', '.join(sorted(needed))} of {path}, which "
                "needs it now: give it a default"
            )


class Facts:
    """Gives the facts of the data to what is made, and compares them with what was given. The
    checkpoint is that of which the system is; its facts may be `adopted` by the data."""

    def __init__(self, data: Any, checkpoint: Any = None, adopted: bool = False) -> None:
        self.data, self.checkpoint, self.adopted = data, checkpoint, adopted
        self.known = facts_of(data)
        self.publishes = isinstance(getattr(data, "facts", None), dict)

    def complete(self, kind: Any, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments given to a class, and the facts that it has arguments for. Raises a
        UserError if one is neither given nor a fact; or both, and they differ."""
        made = dict(given)
        path, data, defaults = path_of(kind), path_of(type(self.data)), arguments_of(kind)
        for name, value in given.items():
            default, here = defaults.get(name), self.known.get(name)
            own = path.startswith("models.") and not same(value, default)
            if own and is_no_size(name, value):
                raise UserError(f"{name} of {path} is {value}: it must be 1 or more")
            needed = default is Parameter.empty
            if name not in self.known or not (needed or self.publishes):
                if needed and value is None:
                    raise UserError(f"{path} takes {name}: give it, or let facts of {data} have it")
            elif value is None or (not needed and same(value, default)):
                made[name] = here
            elif self.adopted or same(value, here):
                continue
            elif self.checkpoint:
                raise UserError(
                    f"{self.checkpoint} was trained with {name} {value}, "
                    f"but this data has {name} {here}; choose data or a checkpoint that fit"
                )
            elif needed:
                raise UserError(
                    f"{name} of {path} is {value}, but it takes that of the data, and {data} has "
                    f"{here}; leave the option out, or have a child of the class set it"
                )
        return made

    def complete_all(self, settings: Any) -> None:
        """Completes the networks and schedules (-1: as long as the fit) in settings, in place."""
        for spec in specs(settings):
            kind = resolve_name(spec["class_path"])
            given = spec["init_args"] = spec.get("init_args") or {}
            if makes_module(kind):
                spec["init_args"] = self.complete(kind, given)
            elif "T_max" in may_lack(kind) and "T_max" in arguments_of(kind):
                given["T_max"] = given.get("T_max") or -1


def is_no_size(name: str, value: Any) -> bool:
    """Whether an argument whose name is that of a size, or of several, has an integer below 1."""
    numbers = value if isinstance(value, list | tuple) else [value]
    return bool(SIZE.search(name)) and any(type(one) is int and one < 1 for one in numbers)


def same(a: Any, b: Any) -> bool:
    return plain(a) == plain(b)


def unlike(one: Any, other: Any) -> Any:
    """Of a long list what the other lacks; nothing, if it only has another order."""
    if not (isinstance(one, list) and isinstance(other, list) and len(one) > 10):
        return one
    return f"…{[item for item in one if item not in other]}…"


def plain(value: Any) -> Any:
    """As a file has it."""
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "__qualname__"):  # a class or function
        return path_of(value)
    return str(value) if isinstance(value, Path) else value


def specs(settings: Any) -> Iterator[dict[str, Any]]:
    """Every class with its arguments in a configuration."""
    if isinstance(settings, dict):
        if isinstance(settings.get("class_path"), str):
            yield settings
        settings = [*settings.values()]
    for part in settings if isinstance(settings, list) else ():
        yield from specs(part)
