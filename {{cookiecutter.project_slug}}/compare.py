"""Compares runs: `python compare.py --sort best --filter tags=sgd --csv runs.csv`."""

from engine.compare import main

if __name__ == "__main__":
    main()
