"""Searches hyperparameters with Optuna: `python sweep.py --config configs/sweep/default.yaml`."""

from engine.sweep import main

if __name__ == "__main__":
    main()
