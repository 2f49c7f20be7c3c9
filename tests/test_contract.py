"""Projects that are no image classifiers, made by small edits as a user makes them, through every
command: what `predict` and exported files say is what plain torch says."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from projects import QUIET, TWO_BATCHES, command, inside
from torch.utils.data import DataLoader

ONE_CPU = [
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto"),
    *("--trainer.max_epochs=1", "--model.optimizer=torch.optim.AdamW"),
    *("--data.num_workers=0", "--data.batch_size=8"),
]

REGRESSION = '''
import torch
from torch import nn
from torch.nn import functional as F

from data.digits import Digits
from engine.samples import TensorSamples
from models.system import System


class Ink(Digits):
    """How dark a digit is, and how high its middle."""

    def load(self):
        samples, rows = super().load()
        images, _ = samples.samples
        ink = images.float().mean(dim=(1, 2, 3))
        height = images.float().argmax(dim=2).float().mean(dim=(1, 2))
        return TensorSamples((images, torch.stack([ink, height], dim=1))), rows

    @property
    def facts(self):
        return {"image_shape": [1, 8, 8], "num_targets": 2}


class Net(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int], num_targets: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_targets))

    def forward(self, images):
        return self.layers(images)


class Regressor(System):
    def loss(self, batch):
        images, targets = batch
        return F.mse_loss(self(images), targets)

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"target": self(batch[0])}


def by_hand(network, batch):
    return {"target": network(batch[0].float() / 127.5 - 1)}
'''

MULTI_LABEL = '''
import torch

from data.digits import Digits
from engine.samples import TensorSamples
from models.classifier import Classifier


class Parts(Digits):
    """Even, round, large: any of them."""

    def load(self):
        samples, rows = super().load()
        images, labels = samples.samples
        marks = torch.stack([labels % 2 == 0, (labels == 0) | (labels > 7), labels > 4], dim=1)
        return TensorSamples((images, marks.float())), rows

    @property
    def facts(self):
        names = ["even", "round", "large"]
        return {**super().facts, "num_classes": 3, "class_names": names}


class Several(Classifier):
    monitor = "val/f1"

    def loss(self, batch):
        images, marks = batch
        logits = self(images)
        self.update_metrics(logits, marks.int())
        return self.criterion(logits, marks)

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"probability": self(batch[0]).sigmoid()}


def by_hand(network, batch):
    return {"probability": network(batch[0].float() / 127.5 - 1).sigmoid()}
'''

TWO_INPUTS = '''
import torch
from torch import nn
from torch.nn import functional as F

from data.base import Data
from engine.samples import TensorSamples
from models.system import System


class Standardize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, batch):
        return batch | {"numbers": (batch["numbers"] - self.mean) / self.std}


class Pairs(Data):
    """A picture of bytes and five numbers of another size for each sample."""

    facts = {"num_numbers": 5}

    def load(self):
        generator = torch.Generator().manual_seed(0)
        numbers = torch.randn(200, 5, generator=generator) * 100 + 300
        picture = torch.randint(256, (200, 1, 6, 6), generator=generator, dtype=torch.uint8)
        return TensorSamples({"picture": picture, "numbers": numbers, "y": numbers.mean(dim=1)}), {}

    def preparation(self):
        split = self.splits["train"]
        numbers = split.dataset.samples["numbers"][split.indices]
        return Standardize(numbers.mean(dim=0), numbers.std(dim=0))


class Net(nn.Module):
    def __init__(self, num_numbers: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(36 + num_numbers, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, picture, numbers):
        return self.layers(torch.cat([picture.flatten(1) / 255, numbers], dim=1)).squeeze(1)


class Both(System):
    def loss(self, batch):
        return F.l1_loss(self(batch["picture"], batch["numbers"]), batch["y"])

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"y": self(batch["picture"], batch["numbers"])}


def by_hand(network, batch):
    train = DATA.splits["train"]
    numbers = train.dataset.samples["numbers"][train.indices]
    scaled = (batch["numbers"] - numbers.mean(dim=0)) / numbers.std(dim=0)
    return {"y": network(batch["picture"], scaled)}
'''

OWN_DATASET = '''
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from models.system import System


class Rows(Dataset):
    """A dict for each sample, with a dict in it."""

    def __init__(self, count: int, seed: int = 0):
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"features": {"x": self.x[i]}, "target": int(self.x[i].sum() > 0), "key": f"row {i}"}


class Net(nn.Module):
    def __init__(self, num_features: int):
        super().__init__()
        self.layers = nn.Linear(num_features, 2)

    def forward(self, x):
        return self.layers(x)


class Of(System):
    def __init__(self, network: nn.Module, **kwargs):
        super().__init__(network, **kwargs)
        self.save_hyperparameters(ignore=["network"])  # as Lightning advises

    def loss(self, batch):
        return F.cross_entropy(self(batch["features"]["x"]), batch["target"])

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"logit": self(batch["features"]["x"])}


def by_hand(network, batch):
    return {"logit": network(batch["features"]["x"])}
'''

ITERABLE = (
    OWN_DATASET.replace("import Dataset", "import IterableDataset")
    .replace(
        '''class Rows(Dataset):
    """A dict for each sample, with a dict in it."""
''',
        '''class Rows(IterableDataset):
    """A stream of the same."""
''',
    )
    .replace(
        """    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {""",
        """    def __iter__(self):
        for i in range(len(self.x)):
            yield {""",
    )
)

PADDED = '''
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from models.system import System


class Series(Dataset):
    """Two to six numbers, and their sum."""

    def __init__(self, count: int = 120):
        generator = torch.Generator().manual_seed(0)
        self.series = [torch.randn(2 + i % 5, generator=generator) for i in range(count)]

    def __len__(self):
        return len(self.series)

    def __getitem__(self, i):
        return {"series": self.series[i], "sum": self.series[i].sum()}


def pad(samples):
    series = pad_sequence([sample["series"] for sample in samples], batch_first=True)
    return {"series": series, "sum": torch.stack([sample["sum"] for sample in samples])}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False))

    def forward(self, series):
        return self.layers(series.unsqueeze(-1)).sum(dim=(1, 2))


class Sum(System):
    def loss(self, batch):
        self.batch_weight = len(batch["sum"])
        return F.mse_loss(self(batch["series"]), batch["sum"])

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"sum": self(batch["series"])}


def by_hand(network, batch):
    return {"sum": network(batch["series"])}
'''

TRIPLETS = '''
import torch
from torch import nn
from torch.nn import functional as F

from data.digits import Digits
from engine.samples import TensorSamples
from models.system import System


class Mix(nn.Module):
    """Prepares what predictions need and what they do not, with a weight that is trained, a layer
    without bias and a buffer that no state_dict holds."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8, bias=False)
        self.register_buffer("scale", torch.tensor(255.0), persistent=False)

    def forward(self, batch):
        numbers = {name: images.to(self.scale.dtype) for name, images in batch.items()}
        return {name: self.layer(one.div_(self.scale)) for name, one in numbers.items()}


class Triplets(Digits):
    """A digit, another of its class, and one of another class."""

    facts = {"image_shape": [1, 8, 8]}

    def load(self):
        samples, rows = super().load()
        images, labels = samples.samples
        order = labels.argsort(stable=True)
        alike, other = order.roll(1), order.roll(200)
        images = images[order], images[alike], images[other]
        return TensorSamples(dict(zip(("anchor", "alike", "other"), images))), rows

    def preparation(self):
        return Mix()


class Net(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int]):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, images):
        return F.normalize(self.layers(images), dim=1)


class Embedder(System):
    def loss(self, batch):
        return F.triplet_margin_loss(*map(self, (batch["anchor"], batch["alike"], batch["other"])))

    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        return {"place": self(batch["anchor"])}


def by_hand(network, batch):
    return {"place": network(SYSTEM.preparation.layer(batch["anchor"].float() / 255))}
'''

PLAIN_MODULE = (
    OWN_DATASET.replace("import Dataset", "import DataLoader, Dataset")
    + '''

from lightning.pytorch import LightningDataModule


class Module(LightningDataModule):
    """As Lightning's documentation has them."""

    num_features = 4

    def __init__(self, batch_size: int = 8, num_workers: int = 0):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Rows(60), batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return {name: DataLoader(Rows(20, len(name)), batch_size=8) for name in ("a", "far")}

    def test_dataloader(self):
        return [DataLoader(Rows(20, seed), batch_size=8) for seed in (3, 4)]

    def predict_dataloader(self):
        return {"all": DataLoader(Rows(20, 3), batch_size=8)}
'''
)

TABLE = '''
import csv
import math

import torch

from data.base import Data
from engine.samples import TensorSamples


class Standardize(torch.nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, batch):
        return (batch[0] - self.mean) / self.std, batch[1]


class Table(Data):
    """A CSV file: the last column is the class, the others are numbers."""

    def __init__(self, path: str = "table.csv", **kwargs):
        super().__init__(**kwargs)
        with open(path, newline="") as file:
            self.columns, *self.rows = csv.reader(file)
        self.class_names = sorted({row[-1] for row in self.rows})

    @property
    def facts(self):
        names = self.class_names
        return {"class_names": names, "num_classes": len(names), "input_shape": [len(self.columns) - 1]}

    def load(self):
        return self.samples(self.rows), {}

    def samples(self, rows, names=None):
        numbers = torch.tensor([[float(cell) for cell in row[:-1]] for row in rows])
        labels = torch.tensor([self.class_names.index(row[-1]) for row in rows])
        return TensorSamples((numbers, labels), labels, names)

    def preparation(self):
        split = self.splits["train"]
        numbers = split.dataset.samples[0][split.indices]
        return Standardize(numbers.mean(dim=0), numbers.std(dim=0))


def by_hand(network, batch):
    split = DATA.splits["train"]
    numbers = split.dataset.samples[0][split.indices]
    probability = network((batch[0] - numbers.mean(dim=0)) / numbers.std(dim=0)).softmax(dim=1)
    return {"probability": probability}
'''

PLAIN = "--data=data.plain.PlainData"
FACTS = '--data.known_facts={"num_features": 4}'
PROJECTS = {
    "regression": (
        REGRESSION,
        ["--model=own.Regressor", "--model.network=own.Net", "--data=own.Ink"],
    ),
    "multi-label": (
        MULTI_LABEL,
        [
            *("--model=own.Several", "--model.network=models.networks.mlp.MLP", "--data=own.Parts"),
            *("--model.loss=torch.nn.BCEWithLogitsLoss",),
            '--model.metrics={"f1": {"class_path": "torchmetrics.classification.MultilabelF1Score",'
            ' "init_args": {"num_labels": 3}}}',
        ],
    ),
    "two inputs": (TWO_INPUTS, ["--model=own.Both", "--model.network=own.Net", "--data=own.Pairs"]),
    "triplets": (
        TRIPLETS,
        [
            *("--model=own.Embedder", "--model.network=own.Net", "--data=own.Triplets"),
            "--trainer.precision=64-true",
        ],
    ),
    "own data set": (
        OWN_DATASET,
        [
            *("--model=own.Of", "--model.network=own.Net", PLAIN, FACTS),
            *("--data.train=own.Rows", "--data.train.count=120"),
        ],
    ),
    "padded": (
        PADDED,
        [
            *("--model=own.Sum", "--model.network=own.Net", PLAIN),
            *("--data.train=own.Series", "--data.collate_fn=own.pad"),
        ],
    ),
    "iterable": (
        ITERABLE,
        [
            *("--model=own.Of", "--model.network=own.Net", PLAIN, FACTS),
            *("--data.train=own.Rows", "--data.train.count=120"),
            *("--data.val=own.Rows", "--data.val.count=20"),
            *("--data.test=own.Rows", "--data.test.count=20"),
        ],
    ),
    "table": (
        TABLE,
        ["--model.network=models.networks.mlp.MLP", "--data=own.Table"],
    ),
    "plain module": (
        PLAIN_MODULE,
        ["--model=own.Of", "--model.network=own.Net", "--data=own.Module"],
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_goes_through_every_command_with_the_numbers_of_plain_torch(
    render, tmp_path, monkeypatch, capfd, name
):
    source, options = PROJECTS[name]
    (tmp_path / "own.py").write_text(source)
    write_table(tmp_path / "table.csv")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own", raising=False)
    with inside(render(model="mlp"), tmp_path):
        # The order of options: classes before their arguments.
        every = [*options, *ONE_CPU, *QUIET, *TWO_BATCHES]
        command("train", "fit", *every)
        resumed = command("train", "fit", *every, "--trainer.max_epochs=2", "--ckpt_path=last")
        assert resumed.trainer.global_step == 4
        metrics = command("train", "test", *every, "--ckpt_path=best").trainer.callback_metrics
        assert metrics["test/loss"].isfinite()
        if name == "plain module":  # it has two loaders
            assert {"val/loss", "val_far/loss"} <= resumed.trainer.callback_metrics.keys()
            assert "test_1/loss" in metrics
        if name == "multi-label":
            assert 0 <= metrics["test/f1"] <= 1
        cli = command("train", "predict", *every, "--ckpt_path=best")
        if name == "table":
            counts = rows(Path("logs/version_0/confusion_matrix.csv"))
            assert counts["true class"] == ["high", "low"]
        command("export", "best", "--format=onnx")
        said = capfd.readouterr()
        assert "difference" in said.out
        assert "As given, not as in" not in said.err
        assert "Training changes" not in said.err

        import own

        own.DATA, own.SYSTEM = cli.datamodule, cli.model.float()
        network = cli.model.network.eval()
        loader = cli.datamodule.predict_dataloader()
        batch, *_ = loader["all"] if isinstance(loader, dict) else loader
        with torch.no_grad():
            right = own.by_hand(network, batch)
        table = rows(Path("logs/version_0/predictions.csv"))
        for key, values in right.items():
            columns = [k for k in table if k == key or k.startswith(f"{key}_")]
            found = torch.tensor([[float(v) for v in table[k]] for k in columns]).T
            count = min(len(values), len(found))
            assert count >= 8
            expected = values.view(len(values), -1)[:count]
            torch.testing.assert_close(found[:count], expected, atol=1e-4, rtol=1e-4)
        if name == "regression":
            from predictor import load

            [row, *_] = load("best")(batch[0].squeeze(1).numpy())
            found = torch.tensor([row["target_0"], row["target_1"]])
            torch.testing.assert_close(found, right["target"][0], atol=1e-4, rtol=1e-4)
        served, inputs = serve(Path("logs/version_0/model.onnx"), batch)
        assert inputs == ["anchor"] or name != "triplets"
        for key, values in right.items():
            torch.testing.assert_close(served[key], values, atol=1e-4, rtol=1e-4)


def write_table(path):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(150, 3, generator=generator) * torch.tensor([1, 100, 0.01])
    lines = [[*row.tolist(), "high" if row[1] > 0 else "low"] for row in numbers]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "c", "level"], *lines])


def test_the_data_adds_columns_to_the_predictions_and_loses_none(render):
    with inside(render(model="mlp")):
        from engine.predictions import PLACE
        from engine.predictions import rows as table_of

        data = SimpleNamespace(predict_columns={"id": [*"abc"], "prediction": [7, 8, 9]})
        columns = dict.fromkeys(PLACE, torch.tensor([0, 0]))
        place = dict.fromkeys(PLACE, torch.tensor([0]))
        columns |= {"_index": torch.tensor([2, 0]), "prediction": torch.tensor([0.5, 1.5])}
        table = table_of(columns, data, SimpleNamespace())
        table["big"] = table_of({**place, "big": torch.tensor([[2**24 + 1]])}, None, None)["big_0"]
        # Names of classes, where it is a class: -1 is none, and a vector has its places.
        system, tags = SimpleNamespace(names={"tag": [*"xyz"]}), torch.tensor([[-1, 2]])
        several = table_of({**place, "tag": tags}, None, system)
        one = table_of({**place, "tag": tags[:, 0]}, None, system)
    assert several == {"input": ["0"], "tag_0": [-1], "tag_1": [2]}
    assert one == {"input": ["0"], "tag": [-1], "tag_name": [""]}
    right = {"input": ["2", "0"], "id": ["c", "a"], "data_prediction": [9, 7]}
    assert table == {**right, "prediction": [0.5, 1.5], "big": [2**24 + 1]}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            [{"a": torch.ones(2, 3)}, {"a": torch.ones(2, 5)}],
            r"gives a \(3,\) for some batches, a \(5,\) for .* Pad them, or give",
        ),
        (
            [{"a": torch.ones(2, 3)}, {"b": torch.ones(2)}],
            r"gives a \(3,\) for some batches, b \(\) for",
        ),
        ([{"mask": torch.ones(2, 4, 4)}], "Not in the table, .* mask. Nothing else: flatten it"),
        ([{"wave": torch.ones(2, 4) * 1j}], "Not in the table, .* wave. Nothing else"),
    ],
    ids=["other widths", "other names", "masks alone", "complex"],
)
def test_what_makes_no_table_is_refused(render, tmp_path, outputs, message):
    with inside(render(model="mlp"), tmp_path):
        from engine import predictor
        from engine.predictions import Predictions

        class Given(LightningModule):
            def predict_step(self, batch, batch_idx):
                return outputs[batch_idx]

        loader = DataLoader(torch.ones(2 * len(outputs), 1), batch_size=2)
        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Predictions("all.csv")])
        with pytest.raises(ValueError, match=message):
            trainer.predict(Given(), loader)
        # What has no row for each input is in no row of a predictor either.
        found = predictor.Found(None)
        found.on_predict_start(trainer, Given())
        found.save(trainer, {"mean": torch.ones(()), "map": torch.ones(2, 3, 3), "a": {}}, [0, 1])
        assert list(found.others) == ["map"]


def test_what_fits_no_table_goes_to_a_data_module_of_any_make(render, tmp_path):
    given = []

    class Given(LightningModule):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return {"mean": batch.mean(dim=1), "map": batch[:, None]}

    class Data(LightningDataModule):
        def predict_dataloader(self):
            return [DataLoader(torch.ones(3, 1), batch_size=2)] * 2

        def save_outputs(self, outputs, names, folder):
            given.append((str(folder), names))

    with inside(render(model="mlp"), tmp_path):
        from engine.predictions import Predictions

        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Predictions("all.csv")])
        trainer.predict(Given(), datamodule=Data())
    names = [["0", "1"], ["2"]]
    assert given == [(folder, part) for folder in (".", "loader_1") for part in names]


@pytest.mark.parametrize("horizon", [1, 2])
def test_inputs_of_several_rows_lose_no_output(render, tmp_path, horizon):
    class Given(LightningModule):
        def predict_step(self, batch, batch_idx):
            return {"forecast": batch[:, None].expand(-1, horizon, -1), "total": batch.sum(dim=1)}

    class Data(LightningDataModule):
        rows_per_input = horizon

        def predict_dataloader(self):
            return DataLoader(torch.tensor([[1.0, 2], [3, 4]]), batch_size=2)

    with inside(render(model="mlp"), tmp_path):
        from engine.predictions import Predictions

        trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Predictions("all.csv")])
        trainer.predict(Given(), datamodule=Data())
        found = rows(Path("all.csv"))
    right = {"forecast_0": ["1.0", "3.0"], "forecast_1": ["2.0", "4.0"], "total": ["3.0", "7.0"]}
    right = {
        name: [one for one in column for _ in range(horizon)] for name, column in right.items()
    }
    assert found == {"input": [*map(str, range(2 * horizon))], **right}


def test_a_table_is_written_whole_or_not_at_all(render, tmp_path, monkeypatch):
    with inside(render(model="mlp"), tmp_path):
        from engine import predictions

        Path("all.csv").write_text("an earlier one")

        def fill_up(path, table):
            path.write_text("half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(predictions, "write_table", fill_up)
        with pytest.raises(ValueError, match="all.csv cannot be written: No space left on device"):
            predictions.Predictions("all.csv").keep(SimpleNamespace(), {"input": ["1"]})
        assert [path.name for path in tmp_path.iterdir()] == ["all.csv"]
        assert Path("all.csv").read_text() == "an earlier one"


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        table = list(reader)
    assert table
    return {name: [row[name] for row in table] for name in table[0]}


def serve(path, batch):
    """What the file gives for a raw batch, whose tensors are found by the names of the inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    inputs = {one.name: lookup(batch, one.name).numpy() for one in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    outputs = map(torch.from_numpy, session.run(None, inputs))
    return dict(zip(names, outputs, strict=True)), list(inputs)


def lookup(batch, name):
    if isinstance(batch, torch.Tensor):
        return batch
    if not isinstance(batch, dict):
        return batch[0]
    key = next((key for key in batch if name == key or name.startswith(f"{key}_")), "features")
    return lookup(batch[key], name.removeprefix(f"{key}_"))
