"""What a command line means, and its help: the options that most people want, and how to see the rest."""

import sys
from pathlib import Path

from engine.records import flat, read_yaml

WANTED = {
    "data": "class of the data; --data.help lists its settings",
    "data.batch_size": "samples in a batch, on each device",
    "data.val_fraction": "share of the training samples that is kept for validation",
    "model.network": "class of the network; its settings follow: --model.network.help",
    "model.lr": "learning rate",
    "model.optimizer": "class of the optimizer; the same goes for --model.scheduler",
    "trainer.max_epochs": "epochs",
    "trainer.accelerator": "cpu, gpu, mps, tpu or auto",
    "trainer.devices": "how many, or which",
    "trainer.precision": "32-true, 16-mixed, bf16-mixed …",
    "trainer.logger": "class of the logger",
    "trainer.fast_dev_run": "true: one batch of everything, and nothing is written",
    "early_stopping.patience": "stop after so many validations without a better score",
    "test_after_fit": "true: test the best checkpoint at the end",
    "seed_everything": "of the weights and of all that is drawn at random",
    "name": "of the run",
    "ckpt_path": "a checkpoint, a run, its name, best or last",
    "config": "a file of settings; may be given several times",
}


def default_to_fit() -> None:
    """Bare options are those of a fit. Lightning starts further processes with the same `sys.argv`."""
    [first] = sys.argv[1:2] or ["--"]
    if first.startswith("-") and first not in ("-h", "--help"):
        sys.argv.insert(1, "fit")


def show_wanted(files: list[str]) -> None:
    """Answers `COMMAND --help`, with the values that the configuration files have, and ends there;
    `COMMAND --help all` is left to the parser."""
    command, *options = sys.argv[1:] or [""]
    if options == ["--help", "all"]:
        sys.argv.pop()
    if command not in ("fit", "validate", "test", "predict") or options not in (["--help"], ["-h"]):
        return
    settings = {k: v for file in files for k, v in flat(read_yaml(Path(file)) or {}).items()}
    print(f"usage: python train.py {command} [--KEY VALUE ...]\n")
    for key, meaning in WANTED.items():
        value = settings.get(key, "VALUE")
        option = f"--{key} {'null' if value is None else value}"
        print(f"  {option:55}  {meaning}")
    print(
        f"\nAll options: python train.py {command} --help all"
        f"\nAll settings, as they are: python train.py {command} --print_config"
    )
    sys.exit()
