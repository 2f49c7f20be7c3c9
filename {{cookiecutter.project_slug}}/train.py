"""Starts the command line: `python train.py [fit|validate|test|predict] [options]`."""

import gc

import engine.processes  # noqa: F401  Its processes end well.
from engine.warning_filters import silence

silence()  # here, since the processes that ddp_spawn starts read this file

# Data workers on macOS and Windows read it, too, and need nothing of the rest.
if __name__ == "__main__":
    gc.disable()  # The imports make a million objects that stay: to collect takes a fifth longer.
    from engine.cli import main

    gc.freeze()
    gc.enable()
    main()
