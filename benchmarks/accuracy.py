"""Trains cells with the default answers as a user would and prints what they reach.

    python benchmarks/accuracy.py                     # all models on the digits
    python benchmarks/accuracy.py --data earth --models unet
    python benchmarks/accuracy.py --data python_source --models gpt
    python benchmarks/accuracy.py --data cifar10 --models cnn vit --options --data.data_dir=/data

Each cell is `python train.py` in a new process, then `python train.py test`. The columns: the
figure on the test split, the goal (digits only), and the seconds of the fit, start-up included.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from templates import DATA, MODELS, ROOT, row_of

# On the digits, on two CPU cores: the figure and the seconds to reach it in.
GOALS = {
    "mlp": (">= 0.96", 60),
    "cnn": (">= 0.98", 60),
    "resnet": (">= 0.98", 180),
    "vit": (">= 0.95", 60),
    "autoencoder": ("<= 0.25", 60),
    "gan": ("<= 0.35", 180),
}
# On other data.
OTHER_GOALS = {
    ("earth", "unet"): (">= 0.80", 300),
    ("python_source", "gpt"): ("<= 2.4", 300),
}
# By system; of others it is the loss.
FIGURES = {
    "classifier": ("acc", "accuracy"),
    "autoencoder": ("loss", "MSE / MSE of the training mean"),
    "gan": ("frechet", "Fréchet distance / untrained generator's"),
    "segmenter": ("mean_iou", "mean IoU"),
    "language_model": ("bits_per_byte", "bits per byte"),
    "tabular": ("(?:acc|rmse)", "accuracy, or RMSE of a regression"),
    "forecaster": ("mase", "MASE"),
}
LOSS = ("loss", "loss")
# The figure is relative to what costs nothing to reach: this prints it.
BASELINES = {
    "autoencoder": """
train = torch.cat([images for images, _ in data.train_dataloader()]).float() / 127.5 - 1
test = torch.cat([images for images, _ in data.test_dataloader()]).float() / 127.5 - 1
print((test - train.mean(dim=0)).square().mean().item())
""",
    "gan": """
from models.frechet import Moments, frechet_distance
real, fake = Moments(), Moments()
for images, _ in data.test_dataloader():
    real.update(images.float() / 127.5 - 1)
torch.manual_seed(0)
system.network.eval()
with torch.inference_mode():
    for chunk in system.noise(system.num_samples, seed=0).split(256):
        fake.update(system(chunk))
print(frechet_distance(real, fake))
""",
}
# What the figure has to beat: this prints it.
RIVALS = {
    "segmenter": (
        "best thresholds on colour",
        """
def counts(split):  # of pixels (class, blue - red + 255, blue)
    found = torch.zeros(3 * 511 * 256, dtype=torch.long)
    rows = data.splits[split]
    for part in torch.tensor(rows.indices).split(64):
        images, masks = rows.dataset.__getitems__(part.tolist())
        red, _, blue = images.long().unbind(dim=1)
        place = (masks.long() * 511 + blue - red + 255) * 256 + blue
        found += place[masks < 3].bincount(minlength=len(found))  # the others do not count
    return found.view(3, 511, 256).double()
def scores(found):  # for each pair of thresholds: bluer than red is water, of little blue a lake
    water = found.flip(1).cumsum(1).flip(1)
    lake = water.cumsum(2)
    both_waters = water.sum(2, keepdim=True)
    land = found.sum((1, 2), keepdim=True) - both_waters
    parts = [both_waters - lake, land.expand_as(lake), lake]
    hits = torch.stack([part[i] for i, part in enumerate(parts)])
    both = torch.stack([part.sum(0) + found[i].sum() for i, part in enumerate(parts)])
    return (hits / (both - hits)).mean(0)
best = scores(counts("train")).argmax()
print(scores(counts("test")).flatten()[best].item())
""",
    )
}
# A fit of no step: the system and the data as the configuration makes them.
PREPARE = """
import os, sys, torch
sys.path[0] = os.getcwd()  # `python -c` has "" there, and configs are read in their own folder
from engine.cli import main
sys.argv = ["train.py", "fit", "--trainer.fast_dev_run=1", "--trainer.limit_train_batches=0",
    "--trainer.enable_model_summary=false", "--data.augment=false", *sys.argv[1:]]
cli = main()
data, system = cli.datamodule, cli.model
"""


def run(project: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout


def measure(data: str, model: str, options: list[str]) -> tuple[float, float, str]:
    """The figure of a cell on the test split, the seconds of its fit, and what a rival reaches."""
    with tempfile.TemporaryDirectory() as folder:
        answers = ["project_slug=cell", f"data={data}", f"model={model}"]
        run(Path(folder), "-m", "cookiecutter", str(ROOT), "--no-input", *answers)
        project = Path(folder, "cell")
        quiet = ["--trainer.enable_progress_bar=false", *options]
        start = time.perf_counter()
        run(project, "train.py", "fit", *quiet)
        seconds = time.perf_counter() - start
        output = run(project, "train.py", "test", "--ckpt_path=best", *quiet)
        system = row_of(data, model)["system"]
        metric, _ = FIGURES.get(system, LOSS)
        figure = float(re.search(rf"test/{metric}\W+([\d.]+)", output)[1])
        if system in BASELINES:
            figure /= float(run(project, "-c", PREPARE + BASELINES[system], *options).split()[-1])
        rival = ""
        if system in RIVALS:
            name, script = RIVALS[system]
            rival = f" ({name}: {float(run(project, '-c', PREPARE + script, *options).split()[-1]):.3f})"
    return figure, seconds, rival


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=list(DATA), default="digits")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(GOALS))
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    print("| model | figure on the test split | reached | goal | seconds of `train.py` | within |")
    print("|---|---|---|---|---|---|")
    for model in arguments.models:
        figure, seconds, rival = measure(arguments.data, model, arguments.options)
        goals = GOALS.get(model) if arguments.data == "digits" else None
        goal, limit = goals or OTHER_GOALS.get((arguments.data, model), ("", ""))
        _, name = FIGURES.get(row_of(arguments.data, model)["system"], LOSS)
        print(
            f"| {model} | {name}{rival} | {figure:.3f} | {goal} | {seconds:.0f} | {limit} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
