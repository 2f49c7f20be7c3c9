"""Work in processes of its own: a fit leaves process groups, compiled code and memory behind."""

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("spawn")


class Child:
    """Runs `function(connection, *arguments)`; what it prints goes to `log`."""

    def __init__(self, log: Path, function: Callable, *arguments: Any) -> None:
        self.log = log
        self.connection, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=work, args=(theirs, log, function, arguments))
        self.process.start()
        theirs.close()

    def receive(self, seconds: float) -> Any:
        """The next message.

        Raises:
            RuntimeError: the process has failed or is late; with the end of what it printed.
        """
        try:
            if self.connection.poll(seconds):
                return self.connection.recv()
            reason = f"no answer in {seconds:.0f} s"
        except EOFError:
            reason = "it ended"
        self.process.kill()
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        raise RuntimeError(f"{self.log.stem}: {reason}: {text[-3000:]}")

    def close(self) -> None:
        self.connection.close()
        self.process.join(20)
        self.process.kill()

    def begin(self) -> None:
        self.connection.send("begin")


def in_turn(starts: list[Callable[[], Any]]) -> Iterator[Any]:
    """What each of `starts` gives; where there are processors for it, the next one is started while
    its turn has not come: its imports need no card."""
    ahead = (os.cpu_count() or 1) >= 8
    ready = starts[0]() if starts else None
    for following in [*starts[1:], None]:
        coming = following() if ahead and following else None
        yield ready
        ready = coming or (following and following())


def work(connection: Connection, log: Path, function: Callable, arguments: tuple) -> None:
    # Only this process starts anew: data workers start as they do in a fit of a user's.
    multiprocessing.set_start_method(None, force=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    try:
        function(connection, *arguments)
    except (BrokenPipeError, EOFError):
        sys.exit(1)  # the parent has ended
    except BaseException:
        traceback.print_exc()
        sys.exit(1)


def await_turn(connection: Connection) -> float:
    """Waits until the parent says `begin`, after all imports; gives the seconds."""
    before = time.perf_counter()
    connection.recv()
    return time.perf_counter() - before


def seconds_since_start() -> float:
    """Of this process, the time that Python itself took to start included."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:  # not Linux
        return time.process_time()
    return uptime - ticks / os.sysconf("SC_CLK_TCK")
