"""The data modules, as they lie in the template: on small files in each data set's own format."""

import importlib
import os
import pickle
import struct
import urllib.error
import warnings
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fixtures import write_cifar10, write_images, write_mnist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from projects import inside, small_data
from templates import DATA, ROOT
from torch.nn import functional
from torch.utils.data import Dataset, DistributedSampler

SETS = [name for name in DATA if DATA[name]["modality"] == "images"]
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28)}
SHAPES |= {"cifar10": (3, 32, 32), "image_folder": (3, 16, 16)}


@pytest.fixture(scope="module", autouse=True)
def template_project():
    with inside(ROOT / "{{cookiecutter.project_slug}}"):
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a small data set of each kind; do not change it."""
    root = tmp_path_factory.mktemp("data")
    write_mnist(root)
    write_mnist(root, data="fashion_mnist")
    write_cifar10(root)
    write_images(root / "images")
    return root


def module(name, room="data"):
    return importlib.import_module(f"{room}.{name}")


def digits(**options):
    return module("digits").Digits(**options)


def folder(path, **options):
    options = {"image_size": 16, "num_workers": 0} | options
    return module("image_folder").ImageFolder(data_dir=str(path), **options)


def make(name, files, **options):
    if name == "digits":
        return digits(**options)
    if name == "image_folder":
        return folder(files / "images", **options)
    kind = getattr(module(name), DATA[name]["class"])
    if name in SHAPES:
        return kind(data_dir=str(files), **options)
    # A data set that has no large files here: those of the projects' own tests.
    words = [option.removeprefix("--data.").split("=") for option in small_data(name, files / name)]
    return kind(**dict(words), **options)


def ready(data, stage="fit"):
    data.prepare_data()
    data.setup(stage)
    return data


def trainer(**options):
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return Trainer(accelerator="cpu", devices=1, **(quiet | options))


class Recorder(LightningModule):
    """A small network with dropout that remembers which batches it saw."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.Dropout(), torch.nn.Linear(16, 10)
        )
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen.append(images.sum().item())
        return functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", functional.cross_entropy(self.network(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.seen.append(batch[0])

    def predict_step(self, batch, batch_idx):
        return batch

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


# --- What every data set promises ---


@pytest.mark.parametrize("name", SETS)
def test_facts_are_known_before_the_data_is_there(name, files, tmp_path):
    data = make(name, files if name == "image_folder" else tmp_path)
    assert data.image_shape == SHAPES.get(name, data.image_shape)
    assert type(data.class_names) is list
    assert data.num_classes == len(data.class_names)
    if name in SHAPES:
        assert data.num_classes == (2 if name == "image_folder" else 10)


@pytest.mark.parametrize("name", SETS)
def test_loaders_give_bytes_and_labels_in_batches(name, files):
    data = ready(make(name, files, batch_size=5))
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    for loader in (*loaders, data.predict_dataloader()):
        images, labels = next(iter(loader))
        assert images.dtype == torch.uint8 and images.shape[1:] == data.image_shape
        # Evaluation takes images in memory in larger batches: it keeps nothing for gradients.
        larger = name != "image_folder" and loader is not loaders[0]
        assert labels.dtype == torch.int64
        assert len(labels) == len(images) <= 5 * (data.evaluation_scale if larger else 1)
    image, label = data.splits["train"][0]
    assert image.shape == data.image_shape and 0 <= label < data.num_classes


@pytest.mark.parametrize("name", SETS)
def test_splits_share_no_image(name, files):
    data = ready(make(name, files))
    rows = [row for split in ("train", "val", "test") for row in data.splits[split].indices]
    assert sorted(rows) == list(range(len(data.splits["train"].dataset)))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_official_test_split_is_kept(name, files):
    data = ready(make(name, files))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [80, 20, 40]
    assert data.splits["test"].indices == list(range(100, 140))


@pytest.mark.parametrize("name", SETS)
def test_options_are_plain_for_the_command_line(name, files):
    kind = type(make(name, files))
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(kind, "data")
    options = ["batch_size=7", "num_workers=auto", "num_folds=5", "fold=2", "on_device=false"]
    config = parser.parse_args([f"--data.{option}" for option in [*options, "augment=true"]]).data
    assert (config.batch_size, config.num_workers, config.on_device) == (7, "auto", False)
    help = parser.format_help()
    has_folder = any(line.startswith("data_dir: ") for line in DATA[name]["arguments"])
    assert "samples in a batch" in help and ("--data.data_dir" in help) == has_folder
    with pytest.raises(Exception, match="num_workers"):
        parser.parse_args(["--data.num_workers=many"])


# --- Splits ---


def labels_of(data, split):
    return data.splits[split].dataset.labels[data.splits[split].indices]


def test_splits_follow_from_the_seed_and_have_the_same_share_of_each_class():
    first, same, other = (ready(digits(seed=seed)) for seed in (0, 0, 1))
    assert first.splits["train"].indices == same.splits["train"].indices
    assert set(first.splits["test"].indices) != set(other.splits["test"].indices)
    shares = [labels_of(first, split).bincount() / 1797 for split in ("train", "val", "test")]
    for share, expected in zip(shares, (0.72, 0.08, 0.2), strict=True):
        assert share.sum().item() == pytest.approx(expected, abs=0.01)
        assert share.max() - share.min() < 0.01


def test_test_split_does_not_depend_on_what_is_kept_for_validation():
    splits = [ready(digits(**o)).splits for o in ({}, {"val_fraction": 0.3}, {"num_folds": 3})]
    assert splits[0]["test"].indices == splits[1]["test"].indices == splits[2]["test"].indices


@pytest.mark.parametrize("name", SETS)
def test_folds_partition_what_is_not_test(name, files):
    folds = [ready(make(name, files, num_folds=3, fold=fold)) for fold in range(3)]
    vals = [set(data.splits["val"].indices) for data in folds]
    pool = vals[0] | vals[1] | vals[2]
    assert len(pool) == sum(map(len, vals)) and max(map(len, vals)) - min(map(len, vals)) <= 1
    for data, val in zip(folds, vals, strict=True):
        assert set(data.splits["train"].indices) == pool - val
        assert not pool & set(data.splits["test"].indices)
        counts = labels_of(data, "val").bincount(minlength=data.num_classes)
        others = labels_of(folds[0], "val").bincount(minlength=data.num_classes)
        assert (counts - others).abs().max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0: it must be 1 or more"),
        ({"num_workers": -1}, "num_workers is -1: it must be 0 or more, or auto"),
        ({"num_workers": 2, "on_device": True}, "num_workers must be auto, and is 2"),
    ],
)
def test_ways_to_load_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        digits(**options)


def test_images_in_files_cannot_be_kept_on_the_device(files):
    with pytest.raises(ValueError, match="the images stay in files: set cache to true"):
        folder(files / "images", on_device=True)
    folder(files / "images", on_device=True, cache=True, num_workers="auto")


@pytest.mark.parametrize(
    "options", [{"num_folds": 3, "fold": 3}, {"num_folds": 1}, {"fold": 1}, {"val_fraction": 1.0}]
)
def test_splits_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="num_folds must be 2 or more|must lie between 0 and 1"):
        digits(**options)


# --- Batches on the device ---


class Batches(Callback):
    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.train.append(batch[0])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.val.append(batch[0])


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("64-true", torch.float64), ("bf16-true", torch.bfloat16)],
)
def test_images_reach_the_model_between_minus_one_and_one(precision, dtype):
    batches = Batches()
    fit = trainer(max_epochs=1, precision=precision, callbacks=batches)
    fit.fit(Recorder(), digits())
    for images in (*batches.train, *batches.val):
        assert images.dtype == dtype and images.min() == -1 and images.max() == 1


def test_augmentation_is_for_training_only():
    def seen(augment):
        seed_everything(0)
        batches = Batches()
        data = digits(augment=augment)
        trainer(max_steps=2, callbacks=batches, num_sanity_val_steps=1).fit(Recorder(), data)
        return batches

    with_it, without = seen(True), seen(False)
    assert not any(map(torch.equal, with_it.train, without.train))
    assert all(map(torch.equal, with_it.val, without.val))


def test_crop_and_flip_draw_for_each_image():
    random_crop = module("images").random_crop
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    images = torch.cat([image, image + 100], dim=1).expand(400, -1, -1, -1)
    padded = functional.pad(images[:1], [2] * 4)
    possible = [
        part.flip(-1) if flip else part
        for top in range(5)
        for left in range(5)
        for part in [padded[0, :, top : top + 5, left : left + 5]]
        for flip in (False, True)
    ]
    result = random_crop(images, 2, flip=True)
    assert result.dtype == torch.uint8 and result.shape == images.shape
    found = Counter(
        next(i for i, part in enumerate(possible) if torch.equal(part, one)) for one in result
    )
    assert len(found) == 50  # every offset, mirrored or not
    unflipped = random_crop(images, 2, flip=False)
    assert all(any(torch.equal(part, one) for part in possible[::2]) for one in unflipped)


def test_augmentation_waits_for_no_device():
    data = ready(digits(augment=True))
    data.trainer = trainer()
    data.trainer.training = True
    batch = next(iter(data.train_dataloader()))
    with torch.profiler.profile() as profile:
        data.on_after_batch_transfer(batch, 0)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert "aten::gather" in calls
    assert not {"aten::item", "aten::_local_scalar_dense", "aten::nonzero"} & set(calls)
    assert sum(calls.values()) < 100  # none for each of the 128 images


def test_images_of_another_kind_than_those_of_the_fit_are_refused():
    """Bytes become -1 to 1, floats stay: what was trained on floats would take bytes for others."""
    kind = module("digits").Digits
    samples, _ = kind().load()
    images = samples.samples[0]

    class Floats(kind):
        def load(self):
            return module("images").in_memory(images / 255, samples.labels), {}

    for data, right in ((kind(), images[:3] / 127.5 - 1), (Floats(), images[:3] / 255)):
        data.setup("fit")
        own, other = (images[:3], images[:3] / 255) if type(data) is kind else (right, images[:3])
        torch.testing.assert_close(data.preparation()((own, None))[0], right)
        with pytest.raises(ValueError, match=f"{other.dtype}: give (floats, as|bytes)"):
            data.preparation()((other, None))


def test_labels_that_are_counted_from_one_are_refused():
    kind = module("digits").Digits
    samples, _ = kind().load()

    class FromOne(kind):
        def load(self):
            return module("images").in_memory(samples.samples[0], samples.labels + 1), {}

    with pytest.raises(ValueError, match="A label is 10: those of 10 classes are 0 to 9"):
        FromOne().setup("fit")


def test_images_of_more_channels_than_files_have_are_not_read_from_them(tmp_path):
    data = digits()
    data.image_shape = (16, 8, 8)
    with pytest.raises(ValueError, match="16 channels: those that are read have 1 or 3"):
        data.read(str(tmp_path))


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_images_that_do_not_fit_the_device_stay_in_main_memory(monkeypatch, caplog, kind):
    tensors = module("samples", "engine").TensorSamples
    samples = tensors((torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1000)
    # Each process has a device of its own, which may be short.
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with caplog.at_level("INFO", logger="lightning.pytorch"):
        samples.move_to(torch.device(kind, 0))
    assert all(part.is_cpu for part in samples.samples) and "stays in main memory" in caplog.text
    samples.move_to(torch.device("meta"))
    assert all(part.is_meta for part in samples.samples)


def test_large_images_are_evaluated_in_batches_as_large_as_in_training(files):
    data = ready(folder(files / "images", image_size=64, cache=True, batch_size=64))
    assert data.val_dataloader().batch_size == 64
    data = ready(folder(files / "images", image_size=64, cache=True, batch_size=4))
    assert data.val_dataloader().batch_size == 4 * 8


def test_a_fit_that_goes_on_keeps_its_order_whatever_the_seed(monkeypatch):
    data = ready(digits(batch_size=32))

    def sampler(seed):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        return module("loaders", "engine").TrainSampler(data.splits["train"], trainer())

    first = [*sampler("1")]
    assert first != [*sampler("2")]
    for epoch in (0, 1):  # that of the state is the present one, or has ended
        again = sampler("2")
        again.load_state_dict(sampler("1").state_dict() | {"epoch": epoch})
        assert first == [*again]


def test_a_tilde_is_the_home_folder(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    monkeypatch.setenv("USERPROFILE", str(files))
    assert len(ready(folder("~/images")).splits["train"]) > 0
    assert module("mnist").MNIST(data_dir="~").root == files
    assert module("image_sources").find_images("~/images")


def test_a_fit_needs_its_images_also_with_others_to_predict(files, tmp_path):
    data = folder(tmp_path / "nowhere", predict_dir=str(files / "images"))
    with pytest.raises(ValueError, match="nowhere"):
        data.setup("fit")


def test_a_try_evaluates_no_larger_batch_than_it_trains():
    for tries, size in ((1, 32), (False, 8 * 32)):
        data = digits(batch_size=32)
        data.trainer = trainer(fast_dev_run=tries)
        data.setup("fit")
        assert data.val_dataloader().batch_size == size


def test_a_fit_that_goes_on_with_workers_takes_the_images_from_the_device(monkeypatch):
    """Workers cannot read the memory of a GPU."""
    places = []
    move_to = module("samples", "engine").TensorSamples.move_to
    monkeypatch.setattr(
        module("samples", "engine").TensorSamples,
        "move_to",
        lambda self, device: (places.append(device.type), move_to(self, device)),
    )
    data = digits(on_device=True)
    data.trainer = trainer()
    data.trainer.state.fn = "fit"
    data.setup("fit")
    data.load_state_dict(data.state_dict())
    assert len(places) == 1
    data.load_state_dict(data.state_dict() | {"num_workers": 2})
    assert len(places) == 2
    assert data.train_dataloader().num_workers == 2


# --- The order of the images, and going on with it ---


def order(seed, epochs=2, **options):
    seed_everything(seed)
    model = Recorder()
    trainer(max_epochs=epochs, limit_val_batches=0).fit(model, digits(**options))
    return model.seen


def test_order_follows_from_the_seed_and_differs_between_epochs():
    first, same, other = order(0), order(0), order(1)
    assert first == same and first != other
    assert first[: len(first) // 2] != first[len(first) // 2 :]


class RandomState(Callback):
    def state_dict(self):
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict):
        torch.set_rng_state(state_dict["torch"])


def resumable_fit(folder, ckpt_path=None, num_workers="auto", **options):
    """Weights and batches of a fit that saves after each step and each validation."""
    seed_everything(0)
    callbacks = [
        RandomState(),
        ModelCheckpoint(
            folder, "step-{step}", every_n_train_steps=1, save_top_k=-1, save_on_exception=False
        ),
        ModelCheckpoint(folder, "epoch-{step}", monitor="val/loss", save_top_k=-1),
    ]
    data = digits(augment=True, batch_size=400, num_workers=num_workers)
    model = Recorder()
    options = {"max_epochs": 2, "enable_checkpointing": True} | options
    trainer(callbacks=callbacks, **options).fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return torch.cat([weights.flatten() for weights in model.parameters()]), model.seen


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 2}, {"val_check_interval": 2}])
def test_fit_continues_bit_for_bit_from_every_checkpoint(options, tmp_path):
    weights, seen = resumable_fit(tmp_path / "all", **options)
    paths = sorted((tmp_path / "all").glob("*.ckpt"), key=os.path.getmtime)
    assert len(paths) >= len(seen) + 2
    for path in paths:
        again, rest = resumable_fit(tmp_path / "again", path, **options)
        assert rest == seen[len(seen) - len(rest) :], path.name
        assert torch.equal(again, weights), path.name


def test_fit_continues_bit_for_bit_with_workers_and_with_another_number_of_them(tmp_path):
    weights, seen = resumable_fit(tmp_path / "all", num_workers=1)
    assert seen == resumable_fit(tmp_path / "none", num_workers=0)[1]
    for name, workers in (("step-step=2", 1), ("step-step=3", 0), ("epoch-step=3", "auto")):
        path = tmp_path / "all" / f"{name}.ckpt"
        again, _ = resumable_fit(tmp_path / "again", path, num_workers=workers)
        assert torch.equal(again, weights), name


def test_last_incomplete_batch_is_dropped_in_training_only():
    data = ready(digits(batch_size=100))
    data.trainer = trainer()
    assert [len(labels) for _, labels in data.train_dataloader()] == [100] * 12
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 149
    data.batch_size = 5000  # more than there are
    assert [len(labels) for _, labels in data.train_dataloader()] == [1284]


def test_one_batch_can_be_overfitted():
    batches = Batches()
    trainer(max_epochs=3, overfit_batches=1, callbacks=batches).fit(Recorder(), digits())
    assert all(torch.equal(images, batches.train[0]) for images in batches.train)


@pytest.mark.parametrize("saved_by", ["rows", "lists"])
def test_batches_cut_from_a_tensor_and_batches_of_lists_go_on_with_each_other(saved_by):
    """A state that torchdata's own batches wrote is taken, and the other way round."""
    data = ready(digits(batch_size=4))
    loaders, split = module("loaders", "engine"), data.splits["train"]
    data.trainer = trainer()

    def by_lists():
        sampler = loaders.TrainSampler(split, data.trainer)
        options = loaders.loader_options(data, split)
        return loaders.StatefulDataLoader(split, **options, sampler=sampler, drop_last=True)

    makers = [lambda: loaders.train_loader(data, split), by_lists]
    first, second = makers if saved_by == "rows" else makers[::-1]
    saving, going_on = first(), second()
    batches = iter(saving)
    assert all(len(next(batches)[0]) == 4 for _ in range(3))
    going_on.load_state_dict(saving.state_dict())
    rest = [labels.tolist() for _, labels in going_on]
    assert rest == [labels.tolist() for _, labels in batches] and len(rest) == len(saving) - 3


# --- Several processes ---


@pytest.mark.parametrize(
    ("images", "processes"),
    [(i, n) for i in (2, 5, 16, 17, 33, 41, 364) for n in (2, 4) if i >= n],
)
def test_evaluation_sees_each_image_once_and_keeps_processes_in_step(images, processes):
    data = ready(digits(batch_size=4))
    split = torch.utils.data.Subset(data.splits["test"].dataset, range(images))
    seen, lengths = [], set()
    for rank in range(processes):
        world = {"num_replicas": processes, "rank": rank}
        data.trainer = SimpleNamespace(
            distributed_sampler_kwargs=world,
            strategy=trainer().strategy,
            num_devices=processes,
            predicting=False,
        )
        loader = module("loaders", "engine").evaluation_loader(data, split)
        # Else Lightning gives each process a part of its part.
        assert isinstance(loader.sampler, DistributedSampler)
        batches = [batch.tolist() for batch in loader.batch_sampler]
        lengths.add(len(batches))
        seen += [index for batch in batches for index in batch]
    assert sorted(seen) == list(range(images)) and len(lengths) == 1


def test_data_modules_travel_to_spawned_processes(files):
    for name in SETS:
        data = make(name, files, batch_size=4)
        copy = ready(pickle.loads(pickle.dumps(data)))
        assert next(iter(copy.train_dataloader()))[0].shape[1:] == data.image_shape


# --- Checkpoints ---


def test_checkpoint_knows_the_data_and_holds_primitives(files, tmp_path):
    kind = module("mnist").MNIST
    data = kind(data_dir=files, batch_size=4)  # a Path
    model = Recorder()
    model.network[1] = torch.nn.Linear(28 * 28, 16)
    fit = trainer(max_steps=1)
    fit.fit(model, data)
    fit.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert checkpoint["datamodule_hyper_parameters"]["data_dir"] == str(files)
    assert checkpoint["MNIST"]["facts"]["class_names"] == data.class_names
    again = kind.load_from_checkpoint(tmp_path / "x.ckpt")
    assert again.hparams == data.hparams


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_data_that_does_not_fit_the_checkpoint_is_an_error_that_names_both(stage, tmp_path):
    fit = trainer(max_steps=1)
    fit.fit(Recorder(), digits())
    fit.save_checkpoint(tmp_path / "x.ckpt")
    other = digits()
    other.class_names = [*"abcdefghij"]
    with pytest.raises(ValueError, match="class_names") as error:
        getattr(trainer(max_steps=2), stage)(Recorder(), other, ckpt_path=tmp_path / "x.ckpt")
    assert "'9'" in str(error.value) and "'a', 'b'" in str(error.value)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, _ = digits().load()
    expected = load_digits()
    assert dataset.labels.tolist() == expected.target.tolist()
    assert np.allclose(dataset.samples[0][:, 0].float() * 16 / 255, expected.images, atol=0.04)


# --- Without a Trainer, and without noise ---


def test_data_modules_work_in_a_plain_loop():
    data = ready(digits())
    loader = data.train_dataloader()
    first, second = (torch.cat([labels for _, labels in loader]) for _ in range(2))
    assert len(first) == 1284 and not torch.equal(first, second)
    images, _ = data.on_after_batch_transfer(next(iter(loader)), 0)
    assert images.dtype == torch.float32 and images.max() == 1


def test_there_are_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    data = SimpleNamespace(hparams=SimpleNamespace(num_workers="auto"), trainer=None)
    assert module("loaders", "engine").workers(data, [1, 2]) == 1


def test_data_causes_no_warning(monkeypatch):
    connector = "lightning.pytorch.trainer.connectors.data_connector"
    monkeypatch.setattr(f"{connector}.suggested_max_num_workers", lambda devices: 8)
    with warnings.catch_warnings(record=True) as caught:
        importlib.reload(module("loaders", "engine"))  # sets its filters inside of this block
        model, data = Recorder(), digits(batch_size=64)
        fit = trainer(max_epochs=1)
        fit.fit(model, data)
        fit.predict(model, data)
    messages = [str(warning.message) for warning in caught]
    assert not [text for text in messages if "treespec" not in text]


# --- Sets that torchvision downloads ---


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize(
    ("name", "place", "file"),
    [
        ("mnist", "MNIST/raw", "t10k-labels-idx1-ubyte"),
        ("fashion_mnist", "FashionMNIST/raw", "train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-batches-py", "data_batch_3"),
    ],
)
def test_downloaded_sets(name, place, file, tmp_path, no_network):
    # Nothing there, and no network: where to put what.
    with pytest.raises(ValueError, match="cannot be downloaded") as error:
        make(name, tmp_path).prepare_data()
    assert str(tmp_path / place) in str(error.value) and file in str(error.value)
    assert "\n" not in str(error.value)
    # All files there: no network is needed.
    new = tmp_path / "new"
    write_cifar10(new) if name == "cifar10" else write_mnist(new, data=name)
    ready(make(name, new))
    # A damaged file is named.
    path = new / place / file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is damaged") as error:
        ready(make(name, new))
    assert str(path) in str(error.value)
    # A missing one is asked for.
    path.unlink()
    with pytest.raises(ValueError, match="Put these files there"):
        make(name, new).prepare_data()


def test_files_of_another_data_set_are_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 100) + bytes(range(100)))
    with pytest.raises(ValueError, match="100 labels up to 99; MNIST has 10 classes"):
        ready(make("mnist", tmp_path))


# --- Folders of images ---


def test_image_folder_with_splits(tmp_path):
    for split, count in (("train", 10), ("val", 4), ("test", 3)):
        write_images(tmp_path / split, count=count)
    data = ready(folder(tmp_path))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [20, 8, 6]
    assert data.class_names == ["cat", "dog"]
    assert data.predict_names == [
        str(tmp_path / "test" / name / f"{i:05}.jpg") for name in ("cat", "dog") for i in range(3)
    ]
    assert set(labels_of(data, "train")[:8].tolist()) == {0, 1}  # not class after class
    assert {len(ready(folder(tmp_path, num_folds=2)).splits["val"])} == {14}  # train and val


def test_copies_of_images_are_told(tmp_path):
    """The same bytes in two classes, or in train and test: the score says nothing."""
    write_images(tmp_path, ("cat", "dog"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder(tmp_path)
    photo = (tmp_path / "cat" / "00003.jpg").read_bytes()
    (tmp_path / "dog" / "cat.jpg").write_bytes(photo)
    (tmp_path / "dog" / "other.jpg").write_bytes(b"x" + photo[1:])  # of the same size and end
    with pytest.warns(UserWarning, match="1 of 26 images are copies .* dog.cat.jpg of cat.00003"):
        folder(tmp_path)


def test_images_without_pixels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="image_size is 0: it must be 1 or more"):
        folder(tmp_path, image_size=0)


def test_image_folder_splits_what_is_missing(tmp_path):
    write_images(tmp_path / "train", count=10)
    write_images(tmp_path / "test", count=3)
    data = ready(folder(tmp_path, val_fraction=0.2))
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [16, 4, 6]


def test_image_folder_ignores_what_is_no_image_and_looks_into_folders(tmp_path, caplog):
    write_images(tmp_path, count=5)
    photo = (tmp_path / "cat" / "00000.jpg").read_bytes()
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._00001.jpg"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / "more").mkdir()
    (tmp_path / "cat" / "more" / "UPPER.JPEG").write_bytes(photo)
    data = ready(folder(tmp_path))
    assert data.class_names == ["cat", "dog"]
    names = data.splits["train"].dataset.names
    deeper = str(tmp_path / "cat" / "more" / "UPPER.JPEG")
    assert len(names) == 11 and deeper in names
    assert (
        f"1 of 11 images lie in folders within that of a class, and belong to that class, as {deeper}"
        in caplog.text
    )
    with pytest.raises(ValueError, match="UPPER.JPEG is a file: give a folder, and unpack"):
        ready(folder(Path(deeper)))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "There is no folder .*Put images in"),
        (["."], "has no folders of classes"),
        (["photo.jpg"], "has no folders of classes"),
        (["cat/a.jpg", "cat/b.jpg", "cat/c.jpg", "dog/"], "There are no images in .*dog"),
        (["cat/a.jpg", "dog/a.jpg"], r"too few images of cat \(1\), dog \(1\): .* class needs 3\."),
        (["Cat/a.jpg", "cat/a.jpg"], "differ in case or"),
        (["train/cat/a.jpg", "test/cat/a.jpg", "test/cow/a.jpg"], "has not: .*cow"),
        (["train/cat/a.jpg", "train/cat/b.jpg", "val/cat/"], "There are no images in .*val"),
        (["cat/a.heic", "cat/b.heic"], r"cat: it has only files .*: 2 \.heic"),
        (["caf\u00e9/a.jpg", "cafe\u0301/a.jpg"], "case or Unicode form only"),
        (["caf\udce9/a.jpg", "tea/a.jpg"], "is not UTF-8: rename it"),
        (["train/a.jpg", "bus/a.jpg"], "If train is a class, .*train/train, .*train/bus"),
        (
            ["train/cat/a.jpg", "valid/cat/a.jpg"],
            "has valid beside train: name splits train, val and test",
        ),
        (["Training/cat/a.jpg", "validation/cat/a.jpg"], "if these are splits, name them"),
        (["Train/cat/a.jpg", "Test/cat/a.jpg"], "if these are splits, name them"),
    ],
)
def test_image_folder_says_what_is_wrong_with_the_folders(paths, message, tmp_path):
    for path in paths:
        target = tmp_path / "images" / path
        (target.parent if target.suffix else target).mkdir(parents=True, exist_ok=True)
        if target.suffix == ".heic":
            target.write_bytes(b"from a telephone")
        elif target.suffix:
            Image.new("RGB", (20, 20)).save(target)
    with pytest.raises(ValueError, match=message) as error:
        ready(folder(tmp_path / "images"))
    assert str(tmp_path / "images") in str(error.value)


def test_val_may_lack_a_class_and_test_all_of_them(tmp_path, caplog):
    write_images(tmp_path / "train", ("a", "b", "rare"), count=4)
    write_images(tmp_path / "val", ("a", "b"), count=2)
    (tmp_path / "val" / "rare").mkdir()
    (tmp_path / "val" / "a" / "@eaDir").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "val" / "a" / "@eaDir" / "small.jpg")
    (tmp_path / "test").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "test" / "what.jpg")
    with caplog.at_level("INFO"):
        data = ready(folder(tmp_path))
    assert data.class_names == ["a", "b", "rare"]
    # Test is split off, as though it were not there.
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [9, 4, 3]
    assert "val has no images of rare" in caplog.text
    assert f"--data.predict_dir {tmp_path / 'test'}" in caplog.text


def test_what_pillow_reads_counts_and_the_rest_is_named(tmp_path, caplog):
    write_images(tmp_path, count=5)
    photo = (tmp_path / "cat" / "00000.jpg").read_bytes()
    for name in ("a.jfif", "b.jpe", "c.JPG"):
        (tmp_path / "cat" / name).write_bytes(photo)
    for name in ("a.heic", "b.heic", "notes.txt"):
        (tmp_path / "dog" / name).write_bytes(b"x")
    (tmp_path / "loose.png").write_bytes(photo)
    with caplog.at_level("INFO"):
        data = ready(folder(tmp_path))
    assert len(data.splits["train"].dataset) == 13
    assert f"in no folder of a class: 1 images, as {tmp_path / 'loose.png'}" in caplog.text
    assert "2 .heic, 1 .txt" in caplog.text and caplog.text.count(".heic") == 1


def test_a_range_that_is_given_counts_where_the_fit_had_none(tmp_path):
    data = folder(tmp_path / "gone", value_range=[0, 4095], predict_dir="x.png")
    data.adopt({"class_names": ["cat", "dog"]})
    assert data.hparams.value_range == [0, 4095]
    data.adopt({"class_names": ["cat", "dog"], "value_range": [10, 20]})
    assert data.hparams.value_range == [10, 20]


@pytest.mark.parametrize("cache", [False, True])
def test_images_of_12_bits_are_not_black(tmp_path, cache, caplog):
    random = np.random.default_rng(0)
    for name, level in (("dim", 600), ("dimmer", 200)):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = random.normal(level, 30, (48, 48)).clip(0, 4095).astype(np.uint16)
            pixels[0, 0] = 65535  # a fault of the sensor
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.{'png' if i % 2 else 'tif'}")
    data = ready(folder(tmp_path, cache=cache, image_size=48))
    low, high = data.facts["value_range"]
    assert 90 <= low <= 150 and 650 <= high <= 750
    images, labels = next(iter(data.train_dataloader()))
    means = [images[labels == label].float().mean() for label in (0, 1)]
    for mean, level in zip(means, (600, 200), strict=True):
        assert mean == pytest.approx((level - low) / (high - low) * 255, abs=4)
    # What is predicted is read in the range of the fit, whatever its own is.
    (tmp_path / "new").mkdir()
    Image.fromarray(np.full((24, 24), (low + high) // 2, np.uint16)).save(tmp_path / "new/a.tif")
    other = folder(tmp_path / "none", predict_dir=str(tmp_path / "new"), image_size=24)
    with pytest.raises(ValueError, match="16 bits, of a range that is not known"):
        next(iter(other.predict_dataloader()))
    other.splits.clear()
    other.adopt(data.facts)
    [image], _ = next(iter(other.predict_dataloader()))
    assert image.unique().tolist() in ([127], [128])


def test_colours_of_16_bits_are_said_to_be_cut(tmp_path):
    pixels = np.full((4, 4, 3), 0x1234, ">u2")
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0), b"IEND": b""}
    chunks[b"IDAT"] = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    png = b"\x89PNG\r\n\x1a\n"
    for name in (b"IHDR", b"IDAT", b"IEND"):
        data = chunks[name]
        png += struct.pack(">I", len(data)) + name + data
        png += struct.pack(">I", zlib.crc32(name + data))
    path = tmp_path / "deep.png"
    path.write_bytes(png)
    with pytest.warns(UserWarning, match="Of colours of 16 bits Pillow reads the upper 8"):
        assert read(path, (3, 4, 4)).unique().tolist() == [0x12]


def test_images_that_show_nothing_are_named(tmp_path):
    write_images(tmp_path, count=6)
    for i in range(4):
        Image.new("L", (20, 20), i % 2).save(tmp_path / "cat" / f"mask{i}.png")
    with pytest.warns(UserWarning, match=r"of \d+ images that were .* of one tone: see .*mask"):
        data = folder(tmp_path)
        data.setup("fit")


def test_damaged_exif_data_leaves_the_pixels(tmp_path):
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n1\nno number")
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    image.save(tmp_path / "image.png", pnginfo=text)
    with pytest.raises(ValueError), Image.open(tmp_path / "image.png") as opened:
        ImageOps.exif_transpose(opened)
    assert read(tmp_path / "image.png")[:, 3, 3].tolist() == [10, 20, 30]


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").write_bytes(b"no image")
    data = folder(tmp_path / "none", predict_dir=str(tmp_path / "new"), skip_unreadable=True)
    with pytest.raises(ValueError, match="None of 1 images can be read"):
        data.predict_dataloader()


def read(path, shape=(3, 8, 8), value_range=None):
    return module("image_files").read_image(str(path), shape, value_range)


def test_images_of_every_kind_can_be_read(tmp_path):
    shades = np.full((8, 8), 100, np.uint8)
    grey = Image.fromarray(shades)
    kinds = {
        "grey.png": grey,
        "bits.png": grey.convert("1"),
        "rgb.webp": grey.convert("RGB"),
        "palette.png": grey.convert("P"),
        "cmyk.jpg": grey.convert("RGB").convert("CMYK"),
        "16bit.png": Image.fromarray(shades.astype(np.uint16) * 257),
        "16bit.tif": Image.fromarray(shades.astype(np.uint16) * 257),
        "alpha.png": grey.convert("RGBA"),
        "bmp.BMP": grey,
    }
    for name, image in kinds.items():
        image.save(tmp_path / name)
        full = [0, 65535] if "16" in name else None
        pixels = read(tmp_path / name, value_range=full)
        assert pixels.shape == (3, 8, 8) and pixels.dtype == torch.uint8
        if name != "bits.png":
            assert (pixels.float() - 100).abs().max() <= 3, name
        assert read(tmp_path / name, (1, 8, 8), full).shape == (1, 8, 8)


def test_what_is_transparent_becomes_white_and_of_frames_the_first_counts(tmp_path):
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    palette = Image.new("P", (8, 8), 0)
    palette.save(tmp_path / "palette.png", transparency=0)
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "clear.png").min() == read(tmp_path / "palette.png").min() == 255
    assert read(tmp_path / "moving.gif").max() == 0


def test_images_are_turned_resized_and_cropped_at_the_centre(tmp_path):
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 64:] = 255  # the right half is white
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees: right becomes bottom
    for options in ({}, {"exif": exif}):
        image.save(tmp_path / "image.jpg", quality=95, **options)
        result = read(tmp_path / "image.jpg").float()
        result = result.transpose(1, 2) if options else result
        assert result[..., :4].max() < 10 and result[..., 4:].min() > 245


def test_large_jpegs_are_read_small_and_alike(tmp_path):
    write_images(tmp_path, ("cat",), count=1, size=256)
    path = tmp_path / "cat" / "00000.jpg"
    expected = Image.open(path).resize((32, 32), Image.Resampling.BOX)
    difference = read(path, (3, 32, 32)).permute(1, 2, 0).numpy() - np.asarray(expected, int)
    assert np.abs(difference).mean() < 2


def broken(folder):
    """Adds three files that cannot be read to the class of dogs."""
    whole = (folder / "dog" / "00000.jpg").read_bytes()
    (folder / "dog" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "text.png").write_text("no image")
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "dog" / "float.tif")


@pytest.mark.parametrize("name", ["truncated.jpg", "text.png", "float.tif"])
def test_an_unreadable_image_is_named(name, tmp_path):
    write_images(tmp_path)
    broken(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        read(tmp_path / "dog" / name)
    assert str(tmp_path / "dog" / name) in str(error.value)


def everything(data):
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    return torch.cat([images for loader in loaders for images, _ in loader])


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_stop_the_training_or_are_skipped_and_counted(workers, tmp_path):
    write_images(tmp_path, count=6)
    broken(tmp_path)
    with pytest.raises(ValueError, match=r"dog.*cannot be read as an image.*skip_unr"):
        everything(ready(folder(tmp_path, num_workers=workers)))
    with pytest.raises(ValueError, match="3 of 15 images cannot be read.*skip_unreadable"):
        ready(folder(tmp_path, cache=True, num_workers=workers))
    for cache in (False, True):
        with pytest.warns(UserWarning, match="Left out 3 of 15 images"):
            data = ready(folder(tmp_path, skip_unreadable=True, cache=cache, num_workers=workers))
        assert len(everything(data)) == 12
        assert not [name for name in data.predict_names if "truncated" in name]


def test_only_a_folder_leaves_out_what_cannot_be_read(tmp_path):
    write_images(tmp_path, count=6)
    broken(tmp_path)
    data = module("digits").Digits(predict_dir=str(tmp_path))
    with pytest.raises(ValueError, match="cannot be read as an image.*; repair or remove it$"):
        list(data.predict_dataloader())


def test_a_class_of_which_no_image_can_be_read_is_refused(tmp_path):
    write_images(tmp_path, count=6)
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="Left out 6 of 12"):
        with pytest.raises(ValueError, match=r"Too few images of the classes \['dog'\] in train"):
            ready(folder(tmp_path, skip_unreadable=True))


def test_in_a_read_only_folder_nothing_is_kept(tmp_path, monkeypatch):
    write_images(tmp_path, count=6)
    broken(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.warns(UserWarning, match="Left out 3 of 15 images"):
        data = ready(folder(tmp_path, skip_unreadable=True))
    assert len(everything(data)) == 12
    assert not cache_files(tmp_path)
    with pytest.raises(ValueError, match="is read-only: cache: true needs to keep a file there"):
        ready(folder(tmp_path, cache=True))


def cache_files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_cache_is_built_once_and_anew_when_files_change(tmp_path, monkeypatch):
    write_images(tmp_path, count=6)
    plain = everything(ready(folder(tmp_path)))
    assert torch.equal(everything(ready(folder(tmp_path, cache=True))), plain)
    before = cache_files(tmp_path)
    assert len(before) == 2

    with monkeypatch.context() as patch:
        patch.setattr("data.image_files.read_image", None)  # not called again
        data = ready(folder(tmp_path, cache=True))
        assert torch.equal(everything(data), plain)
        assert data.predict_names[0].startswith(str(tmp_path))

    Image.new("RGB", (30, 30), "red").save(tmp_path / "cat" / "00000.jpg")  # changed
    changed = everything(ready(folder(tmp_path, cache=True)))
    assert not torch.equal(changed, plain)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "cat" / "new.jpg")  # added
    assert len(everything(ready(folder(tmp_path, cache=True)))) == 13
    assert len(cache_files(tmp_path)) == 2 and cache_files(tmp_path) != before  # old ones go
    ready(folder(tmp_path, cache=True, image_size=8))  # another size has a cache of its own
    assert len(cache_files(tmp_path)) == 4


def test_cache_that_was_not_finished_leaves_nothing(tmp_path, monkeypatch):
    write_images(tmp_path, count=6)
    calls = []

    def stop(path, shape, value_range):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.zeros(shape, dtype=torch.uint8)

    with monkeypatch.context() as patch:
        patch.setattr("data.image_files.read_image", stop)
        with pytest.raises(KeyboardInterrupt):
            ready(folder(tmp_path, cache=True))
    assert cache_files(tmp_path) == []


def build_cache(path):
    """In a process of its own."""
    with inside(ROOT / "{{cookiecutter.project_slug}}"):
        return int(everything(ready(folder(path, cache=True))).sum())


def test_cache_can_be_built_by_several_processes_at_once(tmp_path):
    write_images(tmp_path, count=20)
    expected = int(everything(ready(folder(tmp_path))).sum())
    with torch.multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(build_cache, [tmp_path] * 3) == [expected] * 3
    assert len(cache_files(tmp_path)) == 2


@pytest.mark.parametrize("options", [{"cache": True}, {"skip_unreadable": True}])
def test_a_fit_draws_the_same_numbers_whether_it_reads_all_images_first_or_not(tmp_path, options):
    write_images(tmp_path)
    state = torch.get_rng_state()
    ready(folder(tmp_path, **options))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_link_that_leads_nowhere_is_an_unreadable_image(tmp_path):
    write_images(tmp_path)
    (tmp_path / "cat" / "zz.png").symlink_to("nowhere.png")
    with pytest.warns(UserWarning, match="Left out 1 of 25"):
        ready(folder(tmp_path, skip_unreadable=True))
    with pytest.raises(ValueError, match=r"1 of 25 images cannot be read.*zz\.png"):
        ready(folder(tmp_path, cache=True))


def test_links_to_folders_are_followed_but_not_round_in_a_circle(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "images" / "dog").rename(tmp_path / "dog")
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "dog")
    (tmp_path / "images" / "cat" / "up").symlink_to("..")
    (tmp_path / "images" / "cat" / ".hidden").symlink_to(tmp_path / "dog")
    find_images = module("image_sources").find_images
    assert len(find_images(tmp_path / "images")) == 24
    assert len(find_images(tmp_path / "images" / "cat")) == 12


def test_a_class_that_skipping_leaves_too_small_is_refused(tmp_path):
    write_images(tmp_path)
    for path in sorted((tmp_path / "dog").iterdir())[2:]:
        path.write_bytes(b"no image")
    with pytest.warns(UserWarning, match="Left out 10"):
        with pytest.raises(ValueError, match=r"Too few images of the classes \['dog'\] in train"):
            ready(folder(tmp_path, skip_unreadable=True))


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"val_fraction 0\.9999 leaves no samples to train on"):
        ready(digits(val_fraction=0.9999))


def test_integers_of_more_than_16_bits_are_refused(tmp_path):
    pixels = np.full((8, 8), 70000, dtype=np.int32)
    Image.fromarray(pixels).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match="integers of more than 16 bits"):
        read(tmp_path / "image.tif", (3, 8, 8))


def test_cache_of_another_process_stays_while_it_is_built_again(tmp_path, monkeypatch):
    write_images(tmp_path)
    read_all, replace = module("image_cache").read_all, Path.replace
    theirs = []

    def read_after_the_other(*args):
        monkeypatch.setattr(module("image_cache"), "read_all", read_all)
        build_cache(tmp_path)
        theirs.extend(tmp_path.glob(".images-*"))
        return read_all(*args)

    def replace_what_is_there(path, target):
        assert all(path.is_file() for path in theirs)
        return replace(path, target)

    monkeypatch.setattr(module("image_cache"), "read_all", read_after_the_other)
    monkeypatch.setattr(Path, "replace", replace_what_is_there)
    build_cache(tmp_path)
    assert len(theirs) == 2 and set(tmp_path.glob(".*")) == set(theirs)


# --- Images to predict ---


@pytest.mark.parametrize("name", SETS)
def test_predict_dir_gives_all_images_in_order(name, files, tmp_path):
    photos = write_images(tmp_path / "new", ("b", "a"), count=3)
    data = make(name, files, predict_dir=str(photos), batch_size=4)
    batches = trainer().predict(Recorder(), data)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert images.shape == (6, *data.image_shape) and images.min() >= -1 and images.max() <= 1
    assert labels.tolist() == [-1] * 6
    assert data.predict_names == [
        str(photos / name / f"{i:05}.jpg") for name in ("a", "b") for i in range(3)
    ]
    expected = read(data.predict_names[4], data.image_shape)
    assert torch.equal(images[4], expected / 127.5 - 1)


def test_predict_gives_the_test_split_by_default():
    data = digits()
    batches = trainer().predict(Recorder(), data)
    assert torch.cat([labels for _, labels in batches]).equal(labels_of(data, "test"))
    assert data.predict_names == [str(i) for i in range(len(data.splits["test"]))]


def test_predict_dir_needs_no_training_images(tmp_path, no_network):
    photos = write_images(tmp_path / "new", count=2)
    for name in ("mnist", "cifar10"):
        data = make(name, tmp_path / "nothing", predict_dir=str(photos))
        assert sum(len(b[1]) for b in trainer().predict(Recorder(), data)) == 4
    data = folder(tmp_path / "nothing", predict_dir=str(photos), skip_unreadable=True)
    broken(tmp_path / "new")
    with pytest.warns(UserWarning, match="Left out 3 of 7"):
        trainer().predict(Recorder(), data)
    assert len(data.predict_names) == 4


@pytest.mark.parametrize("name", ["digits", "image_folder"])
def test_predict_dir_without_images_is_refused(name, files, tmp_path):
    with pytest.raises(ValueError, match="There are no images in"):
        make(name, files, predict_dir=str(tmp_path)).predict_dataloader()
    with pytest.raises(ValueError, match="There is no file or folder"):
        make(name, files, predict_dir=str(tmp_path / "none")).predict_dataloader()


class Countdown(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(torch.arange(20).float())


def test_an_iterable_data_set_has_no_folds_and_comes_to_each_worker():
    kind, given = module("plain").PlainData, [Countdown() for _ in range(3)]
    with pytest.raises(ValueError, match="Countdown is iterable and cannot be split: there are no"):
        kind(*given, num_folds=2)
    data = kind(*given, num_workers=2)
    data.setup("fit")
    with pytest.warns(UserWarning, match="Countdown is iterable: each of 2 processes that read it"):
        data.train_dataloader()


def test_an_iterable_data_set_comes_once_whatever_the_cores():
    data = module("plain").PlainData(Countdown(), Countdown(), Countdown(), batch_size=8)
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert torch.cat(list(loader)).tolist() == list(range(20))


def test_a_share_for_validation_is_chosen_only_where_one_is_split_off():
    plain = module("plain").PlainData
    samples = [
        torch.utils.data.TensorDataset(torch.arange(60.0)[:, None] + 60 * i) for i in range(3)
    ]
    assert ready(plain(samples[0])).chosen == {"batch_size": 8, "val_fraction": 0.2}
    assert ready(plain(*samples)).chosen == {"batch_size": 8}
    assert ready(plain(samples[0], num_folds=2)).chosen == {"batch_size": 8}


def test_files_are_offered_to_data_that_reads_them():
    reads = importlib.import_module("engine.results").reads_folders
    own = torch.utils.data.TensorDataset(torch.arange(60.0)[:, None])
    assert reads(digits())
    assert not reads(module("plain").PlainData(own))  # from Python alone


@pytest.mark.parametrize("kind", ["image_folder", "mask_folder"])
def test_images_to_predict_are_of_the_size_of_the_fit(kind):
    make = {"image_folder": "ImageFolder", "mask_folder": "MaskFolder"}[kind]
    made = [getattr(module(kind), make)(predict_dir="x", image_size=size) for size in (64, 16)]
    made[0].go_on_with(made[0].facts, "best.ckpt", adopted=True)
    with pytest.raises(ValueError, match="comes from data with image_size 64, but .* 16"):
        made[1].go_on_with(made[0].facts, "best.ckpt", adopted=True)


@pytest.mark.parametrize("labels", [["no", "yes"] * 20, [0, 1], [0, 1] * 20], ids=str)
def test_labels_that_are_no_class_of_each_sample_do_not_share_out_the_splits(labels):
    """Other data sets have texts in `labels`, or the names of the classes."""

    class Own(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return torch.ones(2), i % 2

    own = Own()
    own.labels = labels
    data = module("plain").PlainData(own)
    data.setup("fit")
    found = data.splits["train"].dataset.labels
    assert found is None if labels != [0, 1] * 20 else found.tolist() == labels
    assert len(data.splits["test"]) == 8
