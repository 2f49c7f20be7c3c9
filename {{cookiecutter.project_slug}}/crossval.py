"""Cross-validates: `python crossval.py --folds 5 [options of train.py]`."""

from engine.crossval import main

if __name__ == "__main__":
    main()
