"""Two fits of the same job take turns on the card: ours, and a loop as one would write it by hand."""

import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from children import await_turn, seconds_since_start
from projects import command, inside

LOGGED = 50  # steps between two logs, as in the projects' configuration


class Job(NamedTuple):
    """A row of the table."""

    name: str
    model: str
    batch_size: int
    steps: int  # of a lap
    goal: float | None = None
    precision: str = "bf16-mixed"
    compile: bool = False
    on_device: bool = True
    jpeg: bool = False
    workers: int = 0
    alone: bool = False  # whether nothing else is started at its side

    @property
    def skipped(self) -> int:
        """First steps of a lap that do not count: data workers have loaded for them before."""
        return 4 * self.workers + 5


class Lap:
    """What both do around a lap; tells images a second, the memory and the first step's time."""

    def __init__(self, connection: Connection, job: Job, waited: float) -> None:
        self.connection, self.job, self.waited = connection, job, waited
        self.first_step = 0.0

    def before_epoch(self) -> None:
        if self.first_step:
            self.connection.send(("ready", self.first_step))
            self.connection.recv()

    def before_step(self, step: int) -> None:
        if step == self.job.skipped:
            synchronize()
            self.started = time.perf_counter()

    def after_step(self, step: int) -> None:
        import torch

        if not self.first_step:
            synchronize()
            self.first_step = seconds_since_start() - self.waited
        if step == self.job.skipped + self.job.steps - 1:
            synchronize()
            seconds = time.perf_counter() - self.started
            rate = self.job.steps * self.job.batch_size / seconds
            memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            self.connection.send((rate, memory))
            self.connection.recv()


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(connection: Connection, project: Path, folder: Path, data: Path, job: Job) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with inside(project, folder):
        import laps

        import engine.cli  # noqa: F401  It imports all the others.

        laps.LAP = Lap(connection, job, await_turn(connection))
        steps = job.skipped + job.steps
        options = [
            f"--data.data_dir={data}",
            f"--data.batch_size={job.batch_size}",
            f"--trainer.precision={job.precision}",
            f"--model.compile={str(job.compile).lower()}",
            f"--trainer.limit_train_batches={steps}",
            *("--trainer.limit_val_batches=0", "--trainer.max_epochs=100"),
            "--trainer.callbacks+=laps.Laps",
        ]
        if job.jpeg:
            options += [f"--data.num_workers={job.workers}"]
        elif not job.on_device:
            options += ["--data.on_device=false"]
        command("train", "fit", *options)


def by_hand(connection: Connection, project: Path, folder: Path, data: Path, job: Job) -> None:
    """The same network, precision, optimizer, augmentation and order of work, without Lightning."""
    sys.path.insert(0, str(project))
    import hand

    lap = Lap(connection, job, await_turn(connection))
    for _ in range(100):
        lap.before_epoch()
        batches: Iterator[Any] = hand.epoch(project, data, job)
        for step in range(job.skipped + job.steps):
            lap.before_step(step)
            hand.step(*next(batches), step)
            lap.after_step(step)
