"""How fast the loops are, with all defaults on, against loops written by hand.

    python benchmarks/training.py [mlp] [cnn] [unet] [tcn] [gpt] [table] [memory]

Prints a Markdown table. Everything has one thread. The loops take turns within one process, an epoch
each, and the best epoch of each counts, by the clock and by the CPU time of the process. An epoch of
ours is all that a fit does: steps, logging, progress bar, checkpoints; validation has its own row.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import contextlib
import io
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from fixtures import write_cifar10, write_mnist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from tables import write_csv
from templates import render_template
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from torchvision.datasets import MNIST
from torchvision.transforms import v2

BATCH_SIZE = 128
WORKERS = (1, 2, 4)
OURS = "ours"
TENSORS = "loop over tensors"
LARGE = "the same in batches of 1,024, as ours"
PER_IMAGE = "transforms per image"
USUAL = "Lightning as templates have it"
Rates = dict[str, tuple[float, float]]  # images a second: by the clock, by CPU time
Loop = Callable[[], int]  # an epoch; returns the number of images


class Watch:
    """The best rates of each contestant."""

    def __init__(self) -> None:
        self.rates: Rates = {}
        self.start()

    def now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def start(self) -> None:
        self.started = self.now()

    def stop(self, name: str, images: int, pause: tuple[float, float] = (0, 0)) -> None:
        rates = [
            images / (now - start - away)
            for now, start, away in zip(self.now(), self.started, pause, strict=True)
        ]
        before = self.rates.get(name, (0, 0))
        self.rates[name] = (max(rates[0], before[0]), max(rates[1], before[1]))

    def run(self, loops: dict[str, Loop]) -> None:
        for name, loop in loops.items():
            self.start()
            self.stop(name, loop())


class Race(Callback):
    """Measures the training epochs of a fit and lets the others run between them."""

    def __init__(self, others: dict[str, Loop], batch_size: int = BATCH_SIZE) -> None:
        self.others, self.batch_size = others, batch_size
        self.watch, self.validation = Watch(), Watch()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validation.start()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now, started = self.validation.now(), self.validation.started
        self.pause = (now[0] - started[0], now[1] - started[1])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.stop(OURS, trainer.num_training_batches * self.batch_size, self.pause)
        self.watch.run(self.others)
        self.watch.start()


class Lap(Callback):
    """Measures the loop of an evaluation, without what is written after it."""

    def __init__(self) -> None:
        self.watch = Watch()

    def begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch.start()

    def end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loaders = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.predict_dataloaders)
        [loader] = [loader for loader in loaders if loader]
        self.watch.stop(OURS, len(loader.dataset))

    on_validation_start = on_test_start = on_predict_start = begin
    on_validation_epoch_end = on_test_epoch_end = on_predict_epoch_end = end


def start(project: Path, callback: Callback, *arguments: str):
    """`python train.py ARGUMENTS` in this process, with one more callback."""
    from engine import cli

    class CLI(cli.CLI):
        def instantiate_trainer(self, **kwargs):
            trainer = super().instantiate_trainer(**kwargs)
            # First where it must not measure the writing of predictions, else last.
            trainer.callbacks.insert(0 if isinstance(callback, Lap) else 99, callback)
            return trainer

    original, cli.CLI = cli.CLI, CLI
    sys.argv = ["train.py", *arguments]
    try:
        return cli.main()
    finally:
        cli.CLI = original


class Reference:
    """A loop written by hand, with the same network and optimizer."""

    def __init__(self, network: nn.Module, loss: nn.Module | None = None) -> None:
        self.network = network
        self.loss = loss or nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)

    def train(self, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> int:
        self.network.train()
        count = 0
        for images, labels in batches():
            self.optimizer.zero_grad()
            loss = self.loss(self.network(images), labels)
            loss.backward()
            self.optimizer.step()
            count += len(labels)
        return count

    @torch.inference_mode()
    def evaluate(self, images: Tensor, labels: Tensor, size: int) -> int:
        self.network.eval()
        loss, correct = torch.zeros(()), torch.zeros(())
        for x, y in zip(images.split(size), labels.split(size), strict=True):
            logits = self.network(x)
            loss += F.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(dim=1) == y).sum()
        return len(labels)

    @torch.inference_mode()
    def predict(self, images: Tensor, labels: Tensor, size: int) -> int:
        self.network.eval()
        found = [self.network(x).softmax(dim=1) for x in images.split(size)]
        torch.cat(found).argmax(dim=1)
        return len(images)


def normalise(images: Tensor) -> Tensor:
    return images.float().div_(127.5).sub_(1)


def batches(images: Tensor, labels: Tensor, limit: int) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.randperm(len(labels))[: limit * BATCH_SIZE].split(BATCH_SIZE):
        yield images[rows], labels[rows]


class Samples(Dataset):
    """One image at a time, as usual."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


class UsualModule(LightningModule):
    """A classifier as most templates have it: metric objects and logs in each step."""

    def __init__(self, network: nn.Module, watch: Watch) -> None:
        super().__init__()
        self.network, self.watch = network, watch
        self.loss, self.accuracy = MeanMetric(), MulticlassAccuracy(10)

    def on_train_epoch_start(self) -> None:
        self.watch.start()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits = self.network(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        self.loss(loss)
        self.accuracy(logits.argmax(dim=1), batch[1])
        self.log("train/loss", self.loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.watch.stop(USUAL, self.trainer.num_training_batches * BATCH_SIZE)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters())


def usual(dataset: Dataset, workers: Iterable[int], limit: int) -> dict[str, DataLoader]:
    """A plain DataLoader over `limit` batches with some numbers of workers."""
    part = Subset(dataset, range(limit * BATCH_SIZE))
    loaders = {
        f"{PER_IMAGE}, {n} workers" if n else f"{PER_IMAGE} without workers": DataLoader(
            part, BATCH_SIZE, True, num_workers=n, persistent_workers=n > 0
        )
        for n in workers
    }
    for loader in loaders.values():
        next(iter(loader))  # starts the workers, before the fit has threads
    return loaders


def race_mlp(project: Path, data: Path, epochs: int = 4) -> None:
    from models.networks.mlp import MLP

    per_sample = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.5])])
    mnist = MNIST(str(data), transform=per_sample)
    images, labels = normalise(mnist.data).unsqueeze(1), mnist.targets
    loop = Reference(MLP((1, 28, 28), 10, (64, 128, 64)))
    training = {TENSORS: lambda: loop.train(lambda: batches(images, labels, limit=422))}
    for name, loader in usual(mnist, (0, *WORKERS), limit=40).items():
        training[name] = lambda loader=loader: loop.train(lambda: loader)
    race = Race(training)
    options = (f"--data.data_dir={data}", "--data.num_workers=0")
    start(project, race, "fit", f"--trainer.max_epochs={epochs}", *options)

    row("mlp, MNIST", race.watch.rates, TENSORS, 0.55)
    row("", race.watch.rates, f"{PER_IMAGE} without", 4)
    row("", race.watch.rates, f"{PER_IMAGE}, ", 2)
    module = UsualModule(MLP((1, 28, 28), 10, (64, 128, 64)), race.watch)
    trainer = Trainer(
        max_epochs=3,
        limit_train_batches=40,
        logger=False,
        enable_checkpointing=False,
        callbacks=RichProgressBar(),
    )
    trainer.fit(module, DataLoader(mnist, BATCH_SIZE, shuffle=True))
    row("", race.watch.rates, USUAL, 4)
    for name, reference, count in (
        ("validate", loop.evaluate, 6_000),
        ("test", loop.evaluate, 10_000),
        ("predict", loop.predict, 10_000),
    ):
        part = images[:count], labels[:count]
        references = {
            TENSORS: lambda reference=reference, part=part: reference(*part, BATCH_SIZE),
            LARGE: lambda reference=reference, part=part: reference(*part, 8 * BATCH_SIZE),
        }
        lap = Lap()
        cli = start(project, lap, name, "--ckpt_path=best", *options)
        for _ in range(12):
            lap.watch.run(references)
            getattr(cli.trainer, name)(cli.model, datamodule=cli.datamodule)
        row(f"mlp, {name}", lap.watch.rates, TENSORS, 0.8)
        row("", lap.watch.rates, LARGE)


def race_cnn(project: Path, data: Path, epochs: int = 3) -> None:
    from data import cifar10
    from data.images import random_crop
    from models.networks.cnn import CNN

    per_sample = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    dataset, _ = cifar10.CIFAR10(data_dir=str(data)).load()
    images, labels = (part[:50_000] for part in dataset.samples)
    network = CNN((3, 32, 32), 10)
    network.forward = lambda images: network.head(network.backbone(images))  # plain memory format
    loop, limit = Reference(network), 5

    def augmented() -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in batches(images, labels, limit):
            yield normalise(random_crop(x, padding=4, flip=True)), y

    training = {f"{TENSORS}, same augmentation": lambda: loop.train(augmented)}
    for name, loader in usual(Samples(images, labels, per_sample), WORKERS, limit).items():
        training[name] = lambda loader=loader: loop.train(lambda: loader)
    race = Race(training)
    limits = (f"--trainer.limit_train_batches={limit}", "--trainer.limit_val_batches=1")
    options = (f"--trainer.max_epochs={epochs}", f"--data.data_dir={data}", *limits)
    start(project, race, "fit", *options)
    row("cnn, CIFAR-10, crop and flip", race.watch.rates, TENSORS, 0.9)
    row("", race.watch.rates, PER_IMAGE, 1.5)


def race_unet(project: Path, data: Path, epochs: int = 3) -> None:
    from data.earth import Earth
    from models.dice_loss import DiceCrossEntropy
    from models.networks.unet import UNet

    earth = Earth(augment=True)
    earth.setup("fit")
    samples, prepare = earth.splits["train"], earth.preparation()
    images, masks = (tensor[samples.indices] for tensor in samples.dataset.samples)
    loss = DiceCrossEntropy(torch.tensor([1.0, 1.0, 4.0]), ignore_index=255)
    loop, limit = Reference(UNet((3, 64, 64), 3, width=8, depth=5), loss), 30

    def augmented() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(masks))[: limit * 8].split(8):
            x, y = prepare(earth.augment((images[rows], masks[rows])))
            yield x, y.long()

    name = f"{TENSORS}, same augmentation"
    race = Race({name: lambda: loop.train(augmented)}, batch_size=8)
    limits = (f"--trainer.limit_train_batches={limit}", "--trainer.limit_val_batches=1")
    start(project, race, "fit", f"--trainer.max_epochs={epochs}", *limits)
    row("unet, earth, flip and turn", race.watch.rates, TENSORS, 0.95)


def race_tcn(project: Path, data: Path, epochs: int = 6) -> None:
    from data.demand import Demand
    from models.networks.tcn import TCN

    demand = Demand(batch_size=BATCH_SIZE)
    demand.setup("fit")
    split = demand.splits["train"]
    series, starts = split.dataset.samples[:, 0], torch.tensor(split.indices)
    known = series[: starts.max() + 528]
    mean, std, unit = known.mean(), known.std(), (known[336:] - known[:-336]).abs().mean()
    loop = Reference(TCN([144, 2], [48, 1], 1))

    def windows() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        limit = len(starts) // BATCH_SIZE * BATCH_SIZE
        for rows in starts[torch.randperm(len(starts))][:limit].split(BATCH_SIZE):
            window = series[rows[:, None] + torch.arange(528)]
            past, future, pattern = window[:, :480], window[:, 480:], window[:, 144:192]
            change = (past[:, 336:] - past[:, :-336]) / unit
            base = pattern + past[:, -1:] - past[:, 143:144]
            inputs = torch.stack([(past[:, 336:] - mean) / std, change], dim=2)
            yield inputs, ((pattern - mean) / std)[..., None], ((future - base) / unit)[..., None]

    def train() -> int:
        loop.network.train()
        count = 0
        for inputs, pattern, target in windows():
            loop.optimizer.zero_grad()
            F.l1_loss(loop.network(inputs, pattern), target).backward()
            loop.optimizer.step()
            count += len(target)
        return count

    race = Race({"loop over one tensor": train})
    start(project, race, "fit", f"--trainer.max_epochs={epochs}", f"--data.batch_size={BATCH_SIZE}")
    row("tcn, demand", race.watch.rates, "loop", 0.85)


def race_gpt(project: Path, data: Path, epochs: int = 3) -> None:
    from data.python_source import PythonSource
    from models.networks.gpt import GPT

    text = b"".join(path.read_bytes() for path in PythonSource().files())
    units = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    loop, limit, count = Reference(GPT(256, context=128)), 40, int(0.81 * len(text) / 128)

    def train() -> int:
        loop.network.train()
        for rows in torch.randperm(count)[: limit * 8].split(8):
            tokens = units[rows[:, None] * 128 + torch.arange(129)].long()
            loop.optimizer.zero_grad()
            logits = loop.network(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            loop.optimizer.step()
        return limit * 8

    race = Race({"loop over one tensor": train}, batch_size=8)
    limits = (f"--trainer.limit_train_batches={limit}", "--trainer.limit_val_batches=1")
    start(project, race, "fit", f"--trainer.max_epochs={epochs}", *limits)
    row("gpt, Python's source (windows of 128 bytes)", race.watch.rates, "loop", 0.95)


def race_table(project: Path, data: Path, epochs: int = 8) -> None:
    from data.csv import CSV
    from models.networks.table_mlp import TableMLP

    table = CSV(data_path=str(data), target="y")
    table.setup("fit")
    samples, prepare = table.splits["train"], table.preparation()
    rows = torch.tensor(samples.indices)
    (numbers, codes), targets = prepare(samples.dataset.samples)
    targets = (targets - targets[rows].mean()) / targets[rows].std()
    loop = Reference(table.build(TableMLP))

    def train() -> int:
        loop.network.train()
        count = 0
        for batch in rows[torch.randperm(len(rows))].split(table.batch_size)[:-1]:
            loop.optimizer.zero_grad()
            outputs = loop.network(numbers[batch], codes[batch]).squeeze(1)
            F.mse_loss(outputs, targets[batch]).backward()
            loop.optimizer.step()
            count += len(batch)
        return count

    race = Race({TENSORS: train}, table.batch_size)
    options = (f"--data.data_path={data}", "--data.target=y")
    start(project, race, "fit", f"--trainer.max_epochs={epochs}", *options)
    row("mlp, a table of 20,000 rows", race.watch.rates, TENSORS, 0.6)


# The races whose data comes with a package.
OTHERS = {
    "unet": (race_unet, "earth"),
    "tcn": (race_tcn, "demand"),
    "gpt": (race_gpt, "python_source"),
}


def row(job: str, rates: Rates, against: str, goal: float | None = None) -> None:
    """Ours against the fastest of the contestants whose names begin so."""
    ours = rates[OURS]
    names = [name for name in rates if name.startswith(against)]
    name = max(names, key=lambda name: rates[name][0])
    clock, cpu = (a / b for a, b in zip(ours, rates[name], strict=True))
    # The CPU time of other processes is not measured.
    by_cpu = "–" if name.endswith(" workers") and "without" not in name else f"{cpu:.2f}"
    print(
        f"| {job} | {ours[0]:,.0f} | {name} | {rates[name][0]:,.0f} "
        f"| {clock:.2f} | {by_cpu} | {f'>= {goal}' if goal else '–'} |",
        file=sys.__stdout__,
        flush=True,
    )


def in_project(race: Callable[[Path, Path], None], project: Path, data: Path) -> None:
    """Runs a race in this process, whose modules become the project's."""
    os.chdir(project)
    sys.path.insert(0, str(project))
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The bar draws as in a terminal; what it draws is not shown.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        race(project, data)


def apart(race: Callable[[Path, Path], None], project: Path, data: Path) -> None:
    """Runs a race in a process of its own, and waits for it."""
    arguments = race, project, data
    process = multiprocessing.get_context("spawn").Process(target=in_project, args=arguments)
    process.start()
    process.join()


def peak(folder: Path, *arguments: str) -> float:
    """The most memory of a Python process in MB."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode()[-2000:]}")
    return usage.ru_maxrss / 1024


def weigh(project: Path, data: Path) -> None:
    fit = ("train.py", "fit", "--trainer.max_epochs=1", f"--data.data_dir={data}")
    tensors = (
        "import lightning.pytorch.cli, torch, torchvision\n"
        "images = torch.ones(70_000, 1, 28, 28, dtype=torch.uint8)\n"
        "labels = torch.ones(70_000, dtype=torch.long)"
    )
    ours, least = peak(project, *fit), peak(project, "-c", tensors)
    print(
        "| most memory of a fit | ours, MB | tensors and imports, MB | ratio | goal |\n"
        "|---|---|---|---|---|"
    )
    print(f"| mlp, MNIST | {ours:,.0f} | {least:,.0f} | {ours / least:.2f} | <= 1.3 |", flush=True)


def main() -> None:
    jobs = sys.argv[1:] or ["mlp", "cnn", *OTHERS, "table", "memory"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"mlp", "memory"} & {*jobs}:
            mnist = write_mnist(folder / "mnist", train=60_000, test=10_000)
            mlp = render_template(folder, data="mnist", model="mlp", project_slug="mlp")
        if {"mlp", "cnn", *OTHERS, "table"} & {*jobs}:
            print("| loop | ours | against | its rate | ratio | by CPU time | goal |")
            print("|---|---|---|---|---|---|---|", flush=True)
        if "mlp" in jobs:
            apart(race_mlp, mlp, mnist)
        if "cnn" in jobs:
            cifar10 = write_cifar10(folder / "cifar10", train=50_000, test=10_000)
            cnn = render_template(folder, data="cifar10", model="cnn", project_slug="cnn")
            apart(race_cnn, cnn, cifar10)
        for model in [name for name in OTHERS if name in jobs]:
            run, data = OTHERS[model]
            project = render_template(folder, data=data, model=model, project_slug=model)
            apart(run, project, folder)
        if "table" in jobs:
            write_csv(folder / "table.csv", size=1000)  # the least: 20,000 rows
            table = render_template(folder, data="csv", project_slug="table")
            apart(race_table, table, folder / "table.csv")
        if "memory" in jobs:
            weigh(mlp, mnist)


if __name__ == "__main__":
    main()
