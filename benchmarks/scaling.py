"""What a second process brings: `vit` on MNIST, ddp, one thread a process, the same batch for each.

    python benchmarks/scaling.py [--batch_size 256] [--steps 8]

Prints a Markdown table. Efficiency is the images a second of ddp over twice those of one process; two
fits at once, which share nothing, show what the machine allows. The fastest epoch of some counts.
Needs two idle cores.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from fixtures import write_mnist
from templates import render_template

STOPWATCH = """
import time

from lightning.pytorch import Callback


class Stopwatch(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:  # the first step makes buffers
            self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        seconds = time.perf_counter() - self.started
        images = (trainer.num_training_batches - 1) * trainer.datamodule.batch_size
        if trainer.is_global_zero:
            print(f"\\nimages/s {images * trainer.world_size / seconds:.1f}", flush=True)
"""


def rate(project: Path, data: Path, devices: int, batch_size: int, steps: int) -> float:
    """Images per second, in the fastest of the epochs."""
    command = [
        *(sys.executable, "train.py", "fit", f"--trainer.devices={devices}"),
        f"--trainer.strategy={'ddp' if devices > 1 else 'auto'}",
        *(f"--data.data_dir={data}", f"--data.batch_size={batch_size}"),
        f"--trainer.limit_train_batches={steps}",
        *("--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0"),
        *("--trainer.max_epochs=4", "--trainer.enable_checkpointing=false"),
        *("--model.network.dim=128", "--model.network.depth=6"),
        "--trainer.callbacks+=stopwatch.Stopwatch",
    ]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return max(map(float, re.findall(r"images/s ([\d.]+)", result.stdout)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = arguments.batch_size * (2 * arguments.steps + 1) * 10 // 9  # a tenth validates
        data = write_mnist(Path(folder) / "mnist", train=images, test=10)
        answers = {
            "model": "vit",
            "data": "mnist",
            "accelerator": "cpu",
            "devices": "1",
            "strategy": "auto",
        }
        project = render_template(Path(folder), project_slug="vit", **answers)
        (project / "stopwatch.py").write_text(STOPWATCH)
        sizes = (arguments.batch_size, arguments.steps)
        one = apart = two = 0.0
        for _ in range(2):
            one = max(one, rate(project, data, 1, *sizes))
            with ThreadPoolExecutor(2) as pool:
                both = [pool.submit(rate, project, data, 1, *sizes) for _ in range(2)]
            apart = max(apart, sum(each.result() for each in both))
            two = max(two, rate(project, data, 2, *sizes))
    print("| images/s, one process | two fits at once | ddp with two | efficiency |")
    print("|---|---|---|---|")
    print(f"| {one:,.0f} | {apart:,.0f} | {two:,.0f} | {two / (2 * one):.2f} |")


if __name__ == "__main__":
    main()
