"""A user's mistake ends in a sentence; another error, or with FULL_TRACEBACK=1, in a traceback."""

import difflib
import errno
import os
import re
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.warning_filters import silence

ENGINE = Path(__file__).parent
PYTHON = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
# How messages of errors begin that are known to say all.
CLEAR = (
    "Early stopping conditioned on metric",
    "Error(s) in loading state_dict",  # of a checkpoint from Python and another network
    "Expected more than 1 value per channel when training",  # batch norm, batches of one sample
)
# What the end of a traceback of others' means here; {found} is what the pattern matches.
MEANINGS = {
    r"No working C\+\+ compiler found|Cannot find a working triton installation": (
        "model.compile: {found}; install one, or set model.compile to false"
    ),
    r"(?<=Error: ).*numpy accepts.*": "seed_everything: {found}",
    r"\[ONNXRuntimeError\] : \d+ : (?P<why>.*)": "onnxruntime: {why} Try --format pt2",
    r"could not create a primitive.*": (
        "{found} This CPU cannot do that in 16 bits: --trainer.precision 32-true"
    ),
    r"(?s)lr_sched.*zip\(\) arg": "A schedule takes no added parameters: --model.scheduler null",
    # Lightning makes the loaders of `predict`, and of several processes, anew.
    r"(?s)more than one `__init__` argument.* `(?P<name>\w+)=\.\.\.`": (
        "Lightning gives a DataLoader its {name} itself here: in yours name what comes after the "
        "data set, as DataLoader(samples, batch_size=8)"
    ),
    r"stack expects each tensor to be equal size.*|resize storage that is not.*": (
        "{found}. Your loader needs a collate_fn (--data.collate_fn; in memory default_convert)"
    ),
    r"(?i)(?<=RuntimeError: ).*\b(double\b.*\bfloat|float\b.*\bdouble)\b.*": (
        "{found}. One of the data and the weights is float64, as NumPy's numbers are: have the "
        "data set give float32 (`.float()`), or set --trainer.precision 64-true"
    ),
}
NO_TENSOR = "{}, which a tensor has: pick one in `preparation`, `loss` or `forward` of a child"
# Where one may not write, or there is no room.
NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EFBIG, errno.EISDIR}
# What Lightning raises where a setting cannot work.
REFUSALS = (ValueError, TypeError, RuntimeError, NotImplementedError)


class UserError(ValueError):
    """A mistake of the user's: its message is all they need to see."""


class Diverged(UserError):
    """The weights of a fit are no numbers any more."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends a script with a sentence where the user has made a mistake, and filters the noise."""
    silence()
    warnings.formatwarning = in_a_line
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a pipe may lack a letter of a name
    try:
        yield
    except Exception as error:
        code = getattr(error, "exit_code", None) or 0  # of a process of ddp_spawn
        if code > 128:
            sys.exit(code)  # last_checkpoint.py has stopped the fit
        if os.environ.get("FULL_TRACEBACK"):
            raise
        if text := mistake_of(error):
            sys.exit(f"error: {text}")
        # The parser wraps what a class raises when it is made; show where that was.
        chain = causes(error)
        while len(chain) > 1 and "jsonargparse" in last_line(chain[0]):
            chain.pop(0)
        raise chain[0] from chain[0].__cause__


def in_a_line(message: Any, category: Any, filename: str, lineno: int, line: Any = None) -> str:
    """A warning as errors are shown, with the place of what is not the engine."""
    if Path(filename).is_relative_to(ENGINE):
        return f"warning: {message}\n"
    return f"warning: {message}{shown(Path(filename), lineno)}\n"


def causes(error: BaseException | None) -> list[BaseException]:
    """An error, what it came from, what that came from, and so on."""
    chain = []
    while error:
        chain.append(error)
        error = error.__cause__
    return chain


def mistake_of(error: BaseException | None) -> str:
    """The user's mistake that an error came from, with its place; empty, if there is none."""
    mistakes = filter(is_mistake, causes(error))
    return next((f"{kind_and_message(one)[1].strip()}{place(one)}" for one in mistakes), "")


def is_mistake(error: BaseException) -> bool:
    """Whether the message says all. So does that of Lightning where it refuses something, and of a
    class that refuses its arguments: one of the user's, or of torch.optim."""
    kind, message = kind_and_message(error)
    if kind in ("UserError", "Diverged", "MisconfigurationException") or message.startswith(CLEAR):
        return True
    if isinstance(error, OSError) and error.errno in NO_PLACE:
        return True
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:  # it comes from another process
        return False
    *_, last = frames
    own, parts = is_own(last.filename), Path(last.filename).parts
    refuses = (last.line or "").startswith(f"raise {kind}")
    if {"lightning", "torchmetrics"} & {*parts} and not own:
        # Before a first step, a TypeError of Python's comes from arguments, too.
        made = any(frame.name == "instantiate_trainer" for frame in frames)
        return isinstance(error, REFUSALS) and (refuses or made)
    # What an optimizer cannot update it says in its first step.
    kinds = REFUSALS if "optim" in parts else (ValueError, TypeError)
    if not (refuses and isinstance(error, kinds)):
        return False
    return own and last.name == "__init__" or bool({"optim", "modules", "prune.py"} & {*parts})


def kind_and_message(error: BaseException) -> tuple[str, str]:
    """Of an error in another process torch hands on the traceback as text: what stands below it."""
    told = f"{last_line(error)}{type(error).__name__}: {error}"
    for pattern, meaning in MEANINGS.items():
        if found := re.search(pattern, told):
            return "UserError", meaning.format(found=found[0], **found.groupdict())
    if isinstance(error, AttributeError) and isinstance(error.obj, dict | list | tuple | str):
        from torch import Tensor  # here, since compare.py is quick without

        if hasattr(Tensor, str(error.name)):
            return "UserError", NO_TENSOR.format(error)
    _, title, trace = str(error).rpartition("Traceback (most recent call last):")
    if title and (end := re.search(r"^(?:\w+\.)*(\w+): (.*)", trace, re.MULTILINE | re.DOTALL)):
        return end[1], end[2]
    return type(error).__name__, str(error)


def place(error: BaseException | None) -> str:
    """Where in the user's own code an error was raised, or passed last: its file and line."""
    frames = []
    for link in causes(error):
        frames += [(f.filename, f.lineno) for f in traceback.extract_tb(link.__traceback__)]
        frames += re.findall(r'File "(.+?)", line (\d+)', str(link))  # of another process
    own = [(Path(file).absolute(), line) for file, line in frames if is_own(file)]
    if not own:
        return ""
    return shown(*own[-1])


def shown(file: Path, line: Any) -> str:
    project = ENGINE.parent
    return f" ({file.relative_to(project) if file.is_relative_to(project) else file}:{line})"


def is_own(file: str) -> bool:
    """Whether a file is the user's: of no library, and not of the engine."""
    path = Path(file).absolute()  # in a folder of PYTHONPATH it may be relative
    # Packages may lie outside the environment: those of the user, or of the whole system.
    installed = {"site-packages", "dist-packages"} & {*path.parts}
    return path.is_file() and not (installed or any(map(path.is_relative_to, (ENGINE, *PYTHON))))


def last_line(error: BaseException) -> str:
    """Where an error was raised; nowhere, if it comes from another process."""
    return "".join(traceback.format_tb(error.__traceback__)[-1:])


def nearest(unknown: str, keys: set[str], wanted: Collection[str] = ()) -> str | None:
    """The key that ends in an unknown one, or is `wanted` and has it within; or the likest."""
    known, unknown = sorted(keys, key=len), unknown.replace("-", "_")
    ends = [key for key in wanted if unknown in key and key in keys]
    ends += [key for key in known if key.endswith(f".{unknown}")]
    return next(iter(ends or difflib.get_close_matches(unknown, known, cutoff=0.65)), None)
