"""Processes: one of its own for a fit, and the end of those that train together."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from engine.warning_filters import silence


@atexit.register
def leave_group() -> None:
    """Lets gloo's threads end first: one that frees a tensor as Python ends aborts the process."""
    group: Any = sys.modules.get("torch.distributed")
    if group and group.is_available() and group.is_initialized():
        group.destroy_process_group()
        time.sleep(0.1)  # for the threads of a group that the caches of sharded tensors still hold


def make_worker() -> ProcessPoolExecutor:
    """A fresh process that ends with this one, even if this one is killed."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=start)


def start() -> None:
    silence()
    # Only this process starts anew: loading of data would take seconds if its workers did.
    multiprocessing.set_start_method(None, force=True)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    for child in multiprocessing.active_children():
        child.kill()
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows they are one
