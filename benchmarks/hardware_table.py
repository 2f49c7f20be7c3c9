"""Prints the table of what hardware goes together: `python benchmarks/hardware_table.py`.
With `--write` it puts it into docs/accelerators.md, between the lines `<!-- hardware-table -->`.

The table comes from the rules in `hooks/pre_gen_project.py`. Each entry says how it is known:

run    trained for real on the bundled digits: each strategy by two processes on a CPU, or by one on
       the cards of docs/gpu_runs.json
built  a real Trainer on simulated hardware (tests/test_hardware_rules.py); nothing was trained
read   from the source; the Trainer was built too, but with a stand-in for the package
"""

import itertools
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import readme_tables
from templates import CHOICES, DEFAULTS, import_hook

PLACE = ROOT / "docs" / "accelerators.md"
STRATEGIES = ("auto", "ddp", "ddp_spawn", "fsdp", "fsdp2", "deepspeed_*")
DEVICES = ("auto", "1", "2", "[0]", "[0, 1]")
RUN = {
    ("auto", "auto"): ("32-true",),
    ("cpu", "auto"): ("32-true", "bf16-mixed", "16-true", "bf16-true", "64-true"),
    ("cpu", "ddp"): ("32-true",),
    ("cpu", "ddp_spawn"): ("32-true",),
    ("cpu", "fsdp2"): ("32-true", "bf16-mixed"),
}
for run in json.loads((ROOT / "docs" / "gpu_runs.json").read_text(encoding="utf-8")):
    for strategy, precisions in run["trained"].items():
        column = "deepspeed_*" if strategy.startswith("deepspeed") else strategy
        RUN["gpu", column] = (*RUN.get(("gpu", column), ()), *precisions)
READ = {("tpu", "auto"), ("gpu", "deepspeed_*")}


NOTES = """\
*run*: trained for real on the digits, the strategies by two processes on a CPU, or by one on an NVIDIA
card ([hardware.md](hardware.md)). *built*: a real `Trainer` on simulated hardware, nothing
trained. *read*: from lightning 2.6.6's
`pytorch/strategies/deepspeed.py` and `xla.py`, deepspeed 0.19.8's `runtime/engine.py` and torch_xla
2.9.0 (with which one device of XLA's CPU backend was trained, no TPU).

- In `16-true` and `bf16-true` the network has 16 bits; what data says, and losses, stay in float32.
- Precision `auto` is `bf16-mixed` on `gpu` and `32-true` elsewhere. Strategy `auto` is one process on
  one device, `ddp` on several, and Lightning's XLA strategy on `tpu`.
- Several devices or machines need a named accelerator: `auto` may find a Mac, which has one GPU and
  trains alone. `tpu` takes one device or all of a host (2, 4 or 8); the hosts of a pod find each other.
- A list of devices goes with `gpu` (`deepspeed_*`: counted from 0), `mps` (`[0]`) and `tpu` (one).
- `ddp_spawn` is for one machine: on several, SLURM or torchrun start the processes.
- `fsdp` in `16-true` and `bf16-true` takes networks without batch norm alone (`vit`).
- The `gan` takes two optimizers and two backward passes per step: no `fsdp`, no `deepspeed_*`.
- `hpu` is not offered: its Lightning plugin had its last release in June 2024 and does not import with
  lightning 2.6."""


def works(rules, **answers: str) -> bool:
    """Whether some number of devices and some model go with these answers."""
    for devices, nodes, model in itertools.product(DEVICES, ("1", "2"), CHOICES["model"]):
        hardware = {**DEFAULTS, "devices": devices, "num_nodes": nodes, "model": model, **answers}
        if not rules.conflicts(rules.parse_hardware(hardware)):
            return True
    return False


def known(accelerator: str, strategy: str, precision: str) -> str:
    if precision in RUN.get((accelerator, strategy), ()):
        return "run"
    return "read" if (accelerator, strategy) in READ else "built"


def cell(rules, accelerator: str, strategy: str) -> str:
    """The precisions of an accelerator and a strategy, by how they are known."""
    name = strategy.replace("*", "stage_3")
    tiers: dict[str, list[str]] = {}
    for precision in CHOICES["precision"]:
        if precision == "auto":
            continue
        if works(rules, accelerator=accelerator, strategy=name, precision=precision):
            tiers.setdefault(known(accelerator, strategy, precision), []).append(precision)
    return "; ".join(f"{', '.join(tiers[tier])} ({tier})" for tier in tiers) or "–"


def table() -> str:
    with tempfile.TemporaryDirectory() as folder:
        rules = import_hook("pre_gen_project", Path(folder))
    rows = [["accelerator", *STRATEGIES], ["---"] * (len(STRATEGIES) + 1)]
    for accelerator in CHOICES["accelerator"]:
        cells = (cell(rules, accelerator, strategy) for strategy in STRATEGIES)
        rows.append([f"`{accelerator}`", *cells])
    rows[0] = [rows[0][0], *(f"`{strategy}`" for strategy in STRATEGIES)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + f"\n\n{NOTES}\n"


split = partial(readme_tables.split, "hardware-table")


if __name__ == "__main__":
    readme_tables.print_or_write("hardware-table", table, __doc__, PLACE)
