"""Starts the command line: `python train.py [fit|validate|test|predict] [options]`."""

import gc

import engine.processes  # noqa: F401  Ends process groups when Python exits.
from engine.warning_filters import silence

silence()  # here, since the processes that ddp_spawn starts import this file

# Data workers on macOS and Windows import it, too, but need nothing of the rest.
if __name__ == "__main__":
    gc.disable()  # The imports make a million lasting objects: garbage collection slows them down.
    from engine.cli import main

    gc.freeze()
    gc.enable()
    main()
