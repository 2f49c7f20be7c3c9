"""What is not shown: messages that tell nobody anything, tracebacks of a user's mistake."""

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

FILTERS = (
    # lightning 2.6 calls a torch class that torch 2.14 renames.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", "lightning.pytorch.utilities._pytree"),
    # Steps are counted across epochs: an epoch shorter than the interval is logged all the same.
    (r"The number of training batches .* is smaller than the logging", "lightning.pytorch.loops"),
    # A machine that belongs to a SLURM cluster may be used for a run of its own.
    (r"The `srun` command is available", "lightning.fabric.plugins.environments.slurm"),
    # SWA has its own scheduler from its first epoch on; what came before may step as it likes.
    (r"SWA is currently only supported every epoch", "lightning.pytorch.callbacks"),
    # Samples per second are what it is used for.
    (r"When using the `ThroughputMonitor`, you need to define", "lightning.pytorch.callbacks"),
    # The names of the `ThroughputMonitor` have a bar in them.
    (r"MLFlow only allows '_', '/', '.' and ' '", "lightning.pytorch.loggers.mlflow"),
    # A frozen backbone's batch norm is trained from the start.
    (r"The provided params to be frozen already exist", "lightning.pytorch.callbacks"),
    # Continuing a run in its own folder is what was asked for.
    (r"Checkpoint directory .* exists and is not empty", "lightning.pytorch.callbacks"),
)

# An evaluation takes the weights of a checkpoint; how they came about does not matter then.
EVALUATION_FILTERS = (
    (r"Be aware that when using `ckpt_path`, callbacks", "lightning.pytorch.trainer.call"),
    (r"You're using the WeightAveraging callback, but load", "lightning.pytorch.callbacks"),
)
LOG_FILTERS = (
    # Lightning advertises other products of its makers at each start.
    ("lightning.pytorch.utilities.rank_zero", "Tip: For seamless cloud"),
    # An experiment, and the database of all, are made when the first run is.
    ("lightning.pytorch.loggers.mlflow", "not found. Creating it"),
    ("mlflow.store.db.utils", "database tables"),
    # An experiment that is kept offline may be made where there is no network.
    ("comet_ml.env_logging", "Failed to log ip"),
    # It wants to be imported before torch to log by itself; Lightning logs.
    ("comet_ml.experiment", "To get all data logged automatically"),
)

# torch hands on the traceback of a data worker as text: the file that raised, and what.
IN_WORKER = re.compile(
    r'\ACaught \w+ in DataLoader worker.*File "([^"]+)", [^\n]*\n +raise .*?\n\w+: (.*\S)',
    re.DOTALL,
)


def silence() -> None:
    for message, module in FILTERS + EVALUATION_FILTERS * (sys.argv[1:2] != ["fit"]):
        warnings.filterwarnings("ignore", message=message, module=module.replace(".", r"\."))
    for name, message in LOG_FILTERS:
        logging.getLogger(name).addFilter(partial(_lacks, message))


def _lacks(message: str, record: logging.LogRecord) -> bool:
    return message not in record.getMessage()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Ends a script with a sentence where the user has made a mistake, and filters the noise."""
    silence()
    try:
        yield
    except Exception as error:
        if mistake := users_mistake(error):
            sys.exit(f"error: {mistake}")
        # The parser wraps what a class raises when it is made; show where that was.
        cause = error.__cause__
        while "jsonargparse" in last_frame(error).filename and isinstance(cause, Exception):
            error, cause = cause, cause.__cause__
        raise error from cause


def users_mistake(error: BaseException | None) -> BaseException | None:
    """The error, or that which it wraps, which Lightning or this project's own code has raised on
    purpose: its message is a sentence for the user, and the traceback would only hide it."""
    if isinstance(error, MisconfigurationException):
        return error
    if worker := IN_WORKER.search(str(error)):
        return ValueError(worker[2]) if is_own(worker[1]) else None
    while error:
        frame = last_frame(error)
        raised = (frame.line or "").startswith("raise ") and isinstance(error, Exception)
        if raised and is_own(frame.filename):
            return error
        error = error.__cause__
    return None


def last_frame(error: BaseException) -> traceback.FrameSummary:
    """Where an error was raised."""
    return traceback.extract_tb(error.__traceback__)[-1]


def is_own(file: str) -> bool:
    """Whether a source file is this project's, and not of an environment in its folder."""
    path = Path(file)
    return path.is_relative_to(Path(__file__).parent) and "site-packages" not in path.parts
