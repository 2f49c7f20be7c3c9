"""Exports a checkpoint: `python export.py CKPT --format onnx|pt2|torchscript --output PATH`."""

from engine.export import main

if __name__ == "__main__":
    main()
