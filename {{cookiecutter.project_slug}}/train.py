"""Starts the command line: `python train.py [fit|validate|test|predict] [options]`."""

import gc
import sys

gc.disable()  # The imports make a million objects to keep: to look for garbage takes a fifth longer.

from cli import main  # noqa: E402
from noise import silence  # noqa: E402

gc.freeze()
gc.enable()
silence()  # here, since the processes that ddp_spawn starts read this file

if __name__ == "__main__":
    # Bare options mean fit. Lightning starts further processes with sys.argv: change it in place.
    if len(sys.argv) == 1 or sys.argv[1].startswith("-") and sys.argv[1] not in ("-h", "--help"):
        sys.argv.insert(1, "fit")
    main()
