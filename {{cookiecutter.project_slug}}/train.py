"""Starts the command line: `python train.py [fit|validate|test|predict] [options]`."""

import sys

from cli import main
from noise import silence

silence()  # here, since the processes that ddp_spawn starts read this file

if __name__ == "__main__":
    # Bare options mean fit. Lightning starts further processes with sys.argv: change it in place.
    if len(sys.argv) == 1 or sys.argv[1].startswith("-") and sys.argv[1] not in ("-h", "--help"):
        sys.argv.insert(1, "fit")
    main()
