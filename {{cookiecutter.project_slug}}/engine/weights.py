"""Weights that a network starts from: of a checkpoint, a run or any file with a `state_dict`."""

from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from engine.checkpoint_io import AtomicCheckpointIO
from engine.errors import UserError
from engine.facts import same, unlike
from engine.runs import find_checkpoint, read_checkpoint

WRAPPINGS = ("state_dict", "model_state_dict", "model")  # under which files keep the weights
MOST_NAMES = 4  # that a message lists


def start_from(network: nn.Module, source: str) -> None:
    """Copies the weights that fit by name and shape; lists the others. Prefixes of the names may
    differ from the network's, as those of a bare backbone do: the pair with most matches counts."""
    path = find_weights(source)
    given, own = read_weights(path), network.state_dict()
    renamed = best_names(given, own)
    taken = {n: given[old] for n, old in renamed.items() if given[old].shape == own[n].shape}
    if not taken:
        raise UserError(
            f"--model.init_from {source}: none of its weights fits this {type(network).__name__}: "
            f"{listing(shapes(given))} there, {listing(shapes(own))} here"
        )
    network.load_state_dict(taken, strict=False)
    other = {name: old for name, old in renamed.items() if name not in taken}
    rest = {
        "of another shape": [
            f"{name} {tuple(given[old].shape)}, here {tuple(own[name].shape)}"
            for name, old in other.items()
        ],
        "only in the file": [name for name in given if name not in renamed.values()],
        "only in the network": [name for name in own if name not in renamed],
    }
    lines = [f"\n  {kind}: {listing(names)}" for kind, names in rest.items() if names]
    rank_zero_info(f"Weights of {path}: {len(taken)} of {len(own)} taken{''.join(lines)}")


def find_weights(source: str) -> Path:
    if (path := Path(source).expanduser()).is_file():
        return path
    return find_checkpoint(source, "best", Path("logs"), "--model.init_from")


def tell_other_data(source: str, known: dict[str, Any]) -> None:
    """Names the facts of the data that a checkpoint was trained on which are others here: shapes
    show no other columns, and no other order of classes."""
    path, saved = find_weights(source), {}
    with suppress(UserError):  # a file of weights alone says nothing
        saved = read_checkpoint(path)
    states = (part for part in saved.values() if isinstance(part, dict))
    facts: dict[str, Any] = next((part["facts"] for part in states if "facts" in part), {})
    other = [name for name in facts.keys() & known.keys() if not same(facts[name], known[name])]
    if other:
        pairs = ((name, facts[name], known[name]) for name in sorted(other))
        listed = (f"{n} {unlike(a, b)!s:.60} (here {unlike(b, a)!s:.60})" for n, a, b in pairs)
        rank_zero_info(f"{path} was trained on other data: {'; '.join(listed)}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of the folder of a sharded checkpoint, by name."""
    try:
        found: Any = AtomicCheckpointIO().load_checkpoint(path, "cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = error if isinstance(error, OSError) else "it is damaged, or holds pickled code"
        raise UserError(f"{path} cannot be read as weights: {reason}") from error
    for key in WRAPPINGS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    tensors = found.items() if isinstance(found, dict) else ()
    weights = {str(name): value for name, value in tensors if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{path} holds no weights: save the state_dict of a module")
    # What the data module prepares batches with is its own matter.
    return {name: value for name, value in weights.items() if not name.startswith("preparation.")}


def best_names(given: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, str]:
    """For names of the network those in the file, with the prefix by which most tensors fit."""
    best: tuple[int, dict[str, str]] = (-1, {})
    for old in prefixes(given):
        for new in prefixes(own):
            pairs = {new + name[len(old) :]: name for name in given if name.startswith(old)}
            pairs = {name: file for name, file in pairs.items() if name in own}
            count = sum(given[file].shape == own[name].shape for name, file in pairs.items())
            best = max(best, (count, pairs), key=lambda found: found[0])  # the first of equals
    return best[1]


def prefixes(names: dict[str, Tensor]) -> list[str]:
    """Of the names the first two parts at most, the shortest first."""
    parts = [name.split(".") for name in names]
    heads = {".".join([*p[:n], ""]) for p in parts for n in (1, 2) if len(p) > n}
    return ["", *sorted(heads, key=lambda head: (head.count("."), head))]


def shapes(weights: dict[str, Tensor]) -> list[str]:
    return [f"{name} {tuple(value.shape)}" for name, value in weights.items()]


def listing(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
