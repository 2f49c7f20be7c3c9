"""What a command line means, and its help: the options that people want first, and the rest."""

import sys
from pathlib import Path

from engine.records import flat, read_yaml

WANTED = {
    "data": "class of the data; its settings: --data.help",
    "data.batch_size": "samples in a batch, on each device",
    "data.val_fraction": "share of the training samples for validation",
    "model.network": "class of the network; --model.network.help",
    "model.lr": "learning rate",
    "model.optimizer": "class of the optimizer; also --model.scheduler",
    "trainer.max_epochs": "epochs",
    "trainer.accelerator": "cpu, gpu, mps, tpu or auto",
    "trainer.devices": "how many, or which",
    "trainer.precision": "32-true, 16-mixed, bf16-mixed …",
    "trainer.fast_dev_run": "true: one batch of everything, nothing is written",
    "early_stopping.patience": "stop after validations without a better score",
    "test_after_fit": "true: test the best checkpoint at the end",
    "seed_everything": "of the weights and all else that is random",
    "name": "of the run",
    "ckpt_path": "a checkpoint, a run, its name, best or last",
    "config": "a file of settings; may be given several times",
}
COMMANDS = ("fit", "validate", "test", "predict")
# What other tools call an option.
ALIASES = {"learning_rate": "lr", "gpus": "devices", "resume": "ckpt_path", "amp": "precision"}
FIT_ONLY = ("model.", "data.val", "trainer.max", "early_stopping", "test_after_fit", "name")


def default_to_fit() -> None:
    """Bare options are a fit's. Lightning starts further processes with the same `sys.argv`."""
    [first] = sys.argv[1:2] or ["-"]
    if first.startswith("-") or "=" in first:
        sys.argv.insert(1, "fit")


def show_wanted(files: list[str]) -> None:
    """Answers `COMMAND --help` with the values of these files; `--help all` is the parser's."""
    command, *options = sys.argv[1:] or [""]
    if options == ["--help", "all"]:
        sys.argv.pop()
    if command not in COMMANDS or options not in (["--help"], ["-h"]):
        return
    settings = {k: v for file in files for k, v in flat(read_yaml(Path(file)) or {}).items()}
    print("usage: python train.py [fit|validate|test|predict] [--KEY VALUE ...]\n")
    hidden = () if command == "fit" else FIT_ONLY
    for key, meaning in ((k, v) for k, v in WANTED.items() if not k.startswith(hidden)):
        value = settings.get(key, "VALUE")
        option = f"--{key} {'null' if value is None else value}"
        print(f"  {option:46}  {meaning}")
    print(f"\nAll options of {command}: python train.py {command} --help all")
    print(f"All settings, as they are: python train.py {command} --print_config")
    sys.exit()
