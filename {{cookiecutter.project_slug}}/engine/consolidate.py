"""Makes one plain checkpoint of a sharded one: `python consolidate.py CKPT_FOLDER OUTPUT.ckpt`."""

import argparse
from pathlib import Path
from typing import Any

from engine.checkpoint_io import AtomicCheckpointIO
from engine.errors import UserError, plain_errors


def load_sharded(folder: Path) -> dict[str, Any]:
    """A folder that `engine.fsdp2.FSDP2` wrote, as the checkpoint that one process would write;
    all of it has to fit into memory."""
    if not (folder / "meta.pt").is_file():
        raise UserError(f"{folder} is not a sharded checkpoint: it has no meta.pt")
    checkpoint = AtomicCheckpointIO().load_checkpoint(folder)
    keys = [key for key in checkpoint if key.startswith("optimizer_") and key[10:].isdigit()]
    states = [checkpoint.pop(key) for key in sorted(keys, key=lambda key: int(key[10:]))]
    if states:
        checkpoint["optimizer_states"] = [numbered(state) for state in states]
    return checkpoint


def numbered(optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state by the numbers of parameters, as torch has it, not by their names."""
    groups = optimizer_state["param_groups"]
    names = [name for group in groups for name in group["params"]]
    number = {name: i for i, name in enumerate(names)}
    return {
        "state": {number[name]: state for name, state in optimizer_state["state"].items()},
        "param_groups": [
            {**group, "params": [number[name] for name in group["params"]]} for group in groups
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="CKPT_FOLDER")
    parser.add_argument("output", type=Path, metavar="OUTPUT.ckpt")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} is there already; remove it or give another name")
    with plain_errors():
        checkpoint = load_sharded(arguments.folder)
        AtomicCheckpointIO().save_checkpoint(checkpoint, arguments.output)
    print(f"Wrote {arguments.output}; test it with: train.py test --ckpt_path {arguments.output}")
