"""A user's mistake ends in a sentence; any other error in its traceback."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.multiprocessing import ProcessExitedException

from engine.warning_filters import silence

PROJECT = Path(__file__).parents[1]
# How messages of errors begin that are known to say all.
CLEAR = (
    "Early stopping conditioned on metric",
    "Error(s) in loading state_dict",  # of a checkpoint from Python and another network
    "Expected more than 1 value per channel when training",  # batch norm, batches of one sample
)
# What torch.compile may lack.
COMPILER = re.compile(r"No working C\+\+ compiler found|Cannot find a working triton installation")


class UserError(ValueError):
    """A mistake of the user's: its message is all they need to see."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends a script with a sentence where the user has made a mistake, and filters the noise."""
    silence()
    try:
        yield
    except Exception as error:
        if isinstance(error, ProcessExitedException) and error.exit_code > 128:
            sys.exit(error.exit_code)  # last_checkpoint.py has stopped the fit
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__:
            chain.append(cause)
        for link in chain:
            if is_mistake(link):
                sys.exit(f"error: {kind_and_message(link)[1].strip()}")
        # The parser wraps what a class raises when it is made; show where that was.
        while "jsonargparse" in last_frame(chain[0]).filename and len(chain) > 1:
            chain.pop(0)
        raise chain[0] from chain[0].__cause__


def is_mistake(error: BaseException) -> bool:
    """Whether the message says all. So does that of a class which refuses its arguments: one of
    ours or of torch.optim, or the Trainer."""
    kind, message = kind_and_message(error)
    if kind in ("UserError", "MisconfigurationException") or message.startswith(CLEAR):
        return True
    frame = last_frame(error)
    import lightning  # not above: it takes seconds, and data workers read this file

    trainers = Path(lightning.__file__).parent
    if isinstance(error, ValueError | TypeError) and Path(frame.filename).is_relative_to(trainers):
        frames = traceback.extract_tb(error.__traceback__)
        return any(frame.name == "instantiate_trainer" for frame in frames)
    refuses = frame.name == "__init__" and (frame.line or "").startswith("raise ValueError")
    own = Path(frame.filename).is_relative_to(PROJECT) and "site-packages" not in frame.filename
    return refuses and (own or "optim" in Path(frame.filename).parts)


def kind_and_message(error: BaseException) -> tuple[str, str]:
    """Of an error in a data worker or a process of ddp_spawn, torch hands on its whole traceback as
    text: what stands below it."""
    if lacks := COMPILER.search(str(error)):
        return "UserError", f"model.compile: {lacks[0]}; install one, or set model.compile to false"
    _, title, trace = str(error).rpartition("Traceback (most recent call last):")
    if title and (end := re.search(r"^(?:\w+\.)*(\w+): (.*)", trace, re.MULTILINE | re.DOTALL)):
        return end[1], end[2]
    return type(error).__name__, str(error)


def last_frame(error: BaseException) -> traceback.FrameSummary:
    """Where an error was raised; nowhere, if it comes from another process."""
    return [traceback.FrameSummary("", 0, ""), *traceback.extract_tb(error.__traceback__)][-1]
