"""Starts the command line: `python train.py [fit|validate|test|predict] [options]`."""

import gc

import engine.processes  # noqa: F401  Its processes end well.
from engine.warning_filters import silence

silence()  # here, since the processes that ddp_spawn starts read this file

# So do data workers, on macOS and Windows, and need nothing of the rest.
if __name__ == "__main__":
    gc.disable()  # The imports make a million objects to keep: to look for garbage takes a fifth.
    from engine.cli import main

    gc.freeze()
    gc.enable()
    main()
