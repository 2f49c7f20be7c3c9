"""A process of its own for fits."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from noise import silence


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
    os._exit(1)
