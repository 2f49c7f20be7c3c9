"""What follows from the size of the data, and what stays as it is said."""

from types import SimpleNamespace

import pytest
import torch
import yaml
from fixtures import write_images
from projects import ONE_CPU, QUIET, command, inside


@pytest.fixture(scope="module")
def folder(render, tmp_path_factory):
    """A project for images of one's own: 2 x 30, of which 12 are the test and 10 the validation."""
    path = tmp_path_factory.mktemp("recipe")
    write_images(path / "datasets" / "images", count=30, size=16)
    with inside(render(data="image_folder", model="cnn"), path):
        yield path


FIT = ["fit", *ONE_CPU, *QUIET, "--data.image_size=8", "--model.network.width=2"]


def test_is_chosen_by_the_number_of_samples_printed_and_written_down(folder, caplog):
    caplog.set_level("INFO")
    cli = command("train", *FIT, "--recipe.epochs=2", "--recipe.steps=56")
    trainer = cli.trainer
    # 38 samples in batches of 8 are 4 steps; 56 steps 14 epochs.
    assert cli.datamodule.batch_size == 8
    assert (trainer.max_epochs, trainer.current_epoch, trainer.global_step) == (14, 14, 56)
    recipe = "Recipe for 38 training samples: 14 epochs of 4 steps, batches of 8, 10 validation"
    assert recipe in caplog.text
    assert (
        "10 validation samples: an accuracy is known to ± 16 points; --data.val_fr" in caplog.text
    )
    config = yaml.safe_load((folder / trainer.default_root_dir / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 14
    assert config["trainer"]["log_every_n_steps"] == 4  # a point in each epoch
    arguments = config["data"]["init_args"]
    assert (arguments["batch_size"], arguments["val_fraction"]) == (8, 0.2)


def test_what_is_said_stays(folder, caplog):
    caplog.set_level("INFO")
    options = ["--trainer.max_epochs=1", "--data.batch_size=19", "--data.val_fraction=0.5"]
    cli = command("train", *FIT, *options)
    assert (cli.trainer.max_epochs, cli.trainer.global_step) == (1, 1)
    assert len(cli.datamodule.splits["val"]) == 24
    assert "Recipe" not in caplog.text
    accumulates = "--trainer.accumulate_grad_batches=2"
    cli = command("train", *FIT, "--trainer.max_epochs=1", "--data.batch_size=38", accumulates)
    assert "1 step an epoch, batches of 38" in caplog.text
    assert "accumulate_grad_batches is 2, more than an epoch has (1)" in caplog.text
    assert cli.trainer.global_step == 1
    trainer = command("train", *FIT, "--trainer.max_steps=3", "--recipe.epochs=1").trainer
    assert (trainer.max_epochs, trainer.global_step) == (-1, 3)


def test_a_validation_split_of_the_data_sets_own_is_not_said_to_grow(folder, caplog):
    caplog.set_level("INFO")
    for split in ("train", "val"):
        write_images(folder / "split" / split, count=8, size=16)
    command("train", *FIT, "--data.data_dir=split", "--trainer.max_epochs=1")
    assert "16 validation samples: an accuracy is known to ± 12 points" in caplog.text
    assert "val_fraction" not in caplog.text


def test_epochs_of_few_steps_are_validated_a_few_at_a_time(folder):
    from engine.recipe import MOST_SAVES

    trainer = command("train", *FIT, f"--recipe.steps={4 * MOST_SAVES + 1}").trainer
    assert trainer.check_val_every_n_epoch == 2
    assert trainer.max_epochs == MOST_SAVES + 2  # the last one is validated
    last = torch.load(folder / trainer.default_root_dir / "checkpoints/last.ckpt")
    assert last["epoch"] == MOST_SAVES + 1


def test_batches_and_validation_suit_any_size(folder):
    from engine.sizes import batch_size_of, fraction_of

    sizes = {1: 8, 30: 8, 242: 16, 290: 16, 1293: 64, 60_000: 64}
    assert {count: batch_size_of(count, 64) for count in sizes} == sizes
    fractions = {32: 0.2, 268: 0.2, 800: 0.12, 1437: 0.1, 60_000: 0.1}
    assert {count: fraction_of("auto", count) for count in fractions} == fractions
    assert fraction_of(0.3, 32) == 0.3


def test_nothing_stops_early_unless_it_is_asked_for(folder):
    still = [*FIT, "--model.lr=0", "--model.scheduler=null", "--trainer.max_epochs=4"]
    assert command("train", *still).trainer.current_epoch == 4
    patient = [*still, "--early_stopping.patience=1", "--early_stopping.min_delta=1"]
    assert command("train", *patient).trainer.current_epoch == 2


def test_the_best_is_not_decided_by_one_image(folder):
    from models.classifier import Classifier

    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 2])
    system = Classifier(torch.nn.Identity()).eval()
    system.stage, system.sums, system.counts, system.is_share = "val", {}, {}, {}
    system.loss((logits, labels))
    share = logits.softmax(1).tolist()
    by_hand = sum(
        (p - (k == label)) ** 2
        for row, label in zip(share, labels.tolist(), strict=True)
        for k, p in enumerate(row)
    )
    assert system.sums["val/brier"].item() == pytest.approx(by_hand)
    # Samples without a label do not count, nor where each sample has several.
    more, some = torch.cat([logits, torch.randn(1, 3)]), torch.cat([labels, labels[:1] - 100])
    for batch in (more, some), (more.T[None], some[None]):
        system.sums, system.counts = {}, {}
        assert system.loss(batch).item() == pytest.approx(system.loss((logits, labels)).item())
        assert system.sums["val/brier"].item() == pytest.approx(2 * by_hand)
        assert (system.sums["val/acc"], system.counts["val/acc"]) == (2, 6)
    assert Classifier.monitor == "val/brier"


def test_the_later_of_two_epochs_that_are_alike_is_the_best(folder):
    """Of 20 images a difference of 0.5 in one, 0.025 on average, decides nothing."""
    from engine.monitors import BestCheckpoint
    from models.classifier import Classifier

    system = Classifier(torch.nn.Identity())
    system.sizes = {"val/brier": torch.tensor(20.0), "val/acc": torch.tensor(20.0)}
    strategy = SimpleNamespace(reduce_boolean_decision=bool)
    trainer = SimpleNamespace(lightning_module=system, strategy=strategy)

    def saved(callback, scores):
        taken = []
        for score in map(torch.tensor, scores):
            if callback.check_monitor_top_k(trainer, score):
                callback.kth_best_model_path, callback.best_k_models = "best", {"best": score}
                callback.best_model_score = score
                taken.append(round(score.item(), 3))
        return taken

    callback = BestCheckpoint(monitor="val/brier")
    assert saved(callback, [0.5, 0.3, 0.31, 0.33, 0.32, 0.326]) == [0.5, 0.3, 0.31, 0.32]
    again = BestCheckpoint(monitor="val/brier")
    again.load_state_dict(callback.state_dict())
    assert saved(again, [0.33, 0.319, 0.2, 0.3]) == [0.319, 0.2], "not of the last that was taken"
    assert saved(BestCheckpoint(monitor="val/acc"), [0.4, 0.3, 0.31]) == [0.4, 0.3]
    system.sizes["val/brier"] = torch.tensor(100.0)  # no few any more
    assert saved(BestCheckpoint(monitor="val/brier"), [0.4, 0.3, 0.301]) == [0.4, 0.3]


def test_images_of_ones_own_are_mirrored_only_if_that_is_said(folder):
    from data.image_folder import ImageFolder

    left = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    left[..., 3:5, 2:4] = 255  # a shift by one leaves the right half dark
    for flip in (False, True):
        data = ImageFolder(image_size=8, augment=True, flip=flip)
        images, _ = data.augment((left, torch.zeros(64)))
        assert images[..., 5:].any().item() == flip
