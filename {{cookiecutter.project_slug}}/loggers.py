"""Where each logger writes."""

from pathlib import Path

from jsonargparse import Namespace


def place_logger(logger: Namespace, run: Path) -> None:
    """Lets the configured logger write into the run folder."""
    kind = logger.class_path.rpartition(".")[2]
    if kind in ("TensorBoardLogger", "CSVLogger", "WandbLogger"):
        logger.init_args.save_dir = str(run)
    if kind == "TensorBoardLogger":
        logger.init_args.name = logger.init_args.version = ""
    elif kind == "CSVLogger":
        logger.init_args.name = "csv"  # a new version for each process: it deletes old files
