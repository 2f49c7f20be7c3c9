"""A split belongs to the sample, and to the checkpoint that was trained on it."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from fixtures import write_images
from projects import ONE_CPU, QUIET, command, inside
from templates import ROOT

SMALL = [*ONE_CPU, *QUIET, "--trainer.max_epochs=1", "--pictures.every_n_epochs=0"]


@pytest.fixture(scope="module", autouse=True)
def template_project():
    with inside(ROOT / "{{cookiecutter.project_slug}}"):
        yield


def settings(**options):
    default = {"seed": 0, "val_fraction": 0.1, "num_folds": None, "fold": 0}
    return SimpleNamespace(**(default | options))


def deal(names, labels, record=None, given=None, **options):
    """The names in each split, and the record."""
    from engine.sample_keys import keys_of
    from engine.splits import complete_splits, record_splits

    class Samples(list):
        ids = names

    keys = keys_of(Samples(names), given or {})
    hparams = settings(**options)
    rows = complete_splits(given or {}, keys, torch.tensor(labels), 0.2, hparams, record)
    found = {split: {names[i] for i in rows[split]} for split in rows}
    return found, record_splits(keys, rows, hparams, record)


def classes(count, start=0):
    names = [f"{kind}/{i}" for kind in "abc" for i in range(start, start + count)]
    return names, [ord(name[0]) - 97 for name in names]


FOLDS = {"num_folds": 4, "fold": 1}


@pytest.mark.parametrize("options", [{}, FOLDS], ids=["val_fraction", "folds"])
def test_added_and_removed_samples_move_no_other(options):
    names, labels = classes(50)
    before, record = deal(names, labels, **options)
    more_names, more_labels = classes(37, start=50)
    stay = [i for i in range(150) if i % 7]
    names = [names[i] for i in stay] + more_names
    after, _ = deal(names, [labels[i] for i in stay] + more_labels, record, **options)
    for split in before:
        assert before[split] & set(names) == after[split] - set(more_names)
    for kind, count in ((kind, sum(n[0] == kind for n in names)) for kind in "abc"):
        sizes = {split: sum(n[0] == kind for n in after[split]) for split in after}
        assert abs(sizes["test"] - 0.2 * count) <= 1
        share = 0.25 if options else 0.1
        assert abs(sizes["val"] - share * (count - sizes["test"])) <= 1.25


def test_whole_numbers_that_are_no_classes_are_split_plainly():
    names = [str(i) for i in range(100)]
    found, _ = deal(names, [7 * i for i in range(100)])  # as prices
    assert [len(found[split]) for split in ("train", "val", "test")] == [72, 8, 20]


def test_what_is_there_once_is_trained_on():
    names = [str(i) for i in range(43)]
    found, _ = deal(names, [0] * 20 + [1] * 20 + [2] + [3] * 2)
    assert "40" in found["train"]
    assert len({"41", "42"} & found["test"]) == len({"41", "42"} & found["train"]) == 1


def test_a_share_for_validation_beside_a_split_of_the_datas_own_is_told(recwarn):
    given = {"train": torch.arange(40), "val": torch.arange(40, 60)}
    found, _ = deal(*classes(20), given=given, val_fraction="auto")
    assert not recwarn and len(found["val"]) == 20
    with pytest.warns(match="val_fraction is 0.3, and the data comes with a validation split"):
        assert deal(*classes(20), given=given, val_fraction=0.3)[0] == found


def test_without_a_record_a_sample_trained_on_stays_out_of_the_test_split():
    """Splits follow from the names: where files are added or removed, few move, and to val."""
    before, _ = deal(*classes(100))
    after, _ = deal(*classes(140))
    assert not before["train"] & after["test"]


def test_a_sample_that_comes_back_is_where_it_was():
    names, labels = classes(30)
    before, record = deal(names, labels)
    _, record = deal(names[::2], labels[::2], record)
    after, _ = deal(names, labels, record)
    assert after == before


def test_rows_without_names_are_known_by_what_is_in_them():
    from engine.sample_keys import keys_of
    from engine.samples import TensorSamples

    numbers = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    numbers[7] = numbers[3]
    whole = keys_of(TensorSamples({"x": numbers, "y": torch.arange(50)}), {})
    stay = torch.tensor([i for i in range(50) if i != 20])
    fewer = keys_of(TensorSamples({"x": numbers[stay], "y": torch.arange(50)[stay]}), {})
    assert torch.equal(whole[stay], fewer) and len(whole.unique()) == 50
    same = keys_of(TensorSamples(torch.zeros(4, 1)), {})
    assert len(same.unique()) == 4  # each is a sample of its own


def test_a_million_samples_take_8_megabytes_of_a_checkpoint():
    from engine.splits import complete_splits, record_splits

    keys = torch.arange(1_000_000) * 2**40
    rows = complete_splits({}, keys, None, 0.2, settings())
    record = record_splits(keys, rows, settings(), None)
    assert sum(keys.nbytes for keys in record.keys.values()) == 8_000_000


# --- What commands make of it ---


def predicted(*options):
    command("train", "predict", *SMALL, *options)
    lines = Path("logs/version_0/predictions.csv").read_text().splitlines()[1:]
    return {line.split(",")[0] for line in lines}


def test_images_added_after_a_fit_are_not_mixed_up(render, tmp_path, caplog):
    with inside(render(data="image_folder", model="mlp"), tmp_path):
        write_images(tmp_path / "images", count=40)
        options = [f"--data.data_dir={tmp_path / 'images'}", "--data.image_size=16"]
        fit = command("train", "fit", *SMALL, *options)
        trained = {Path(fit.datamodule.splits["train"].dataset.ids[i]) for i in trained_rows(fit)}
        tested = predicted()  # the data settings are those of the checkpoint
        for i in range(0, 40, 5):
            shutil.copy(tmp_path / "images/cat/00001.jpg", tmp_path / f"images/cat/a{i}.jpg")
        (tmp_path / "images/dog/00000.jpg").unlink()
        caplog.clear()
        found = predicted()
        assert {name for name in tested if Path(name).exists()} <= found
        assert not {Path(name).relative_to(tmp_path / "images") for name in found} & trained
        assert "8 samples have been added and 1 removed" in caplog.text
        assert "What was renamed, changed or copied is new" in caplog.text
        on = command("train", "fit", *SMALL, "--ckpt_path=last", "--trainer.max_epochs=2")
        val = on.datamodule.splits["val"]
        assert not {Path(val.dataset.ids[i]) for i in val.indices} & trained


def test_functions_are_compared_by_the_names_that_files_give_them(render):
    with inside(render(model="mlp")):
        from engine.facts import same

        functions = {"torch.relu": torch.relu, "torch.nn.functional.relu": torch.nn.functional.relu}
        for name, function in {**functions, "numpy.sqrt": np.sqrt, "math.sqrt": math.sqrt}.items():
            assert same(name, function)


def trained_rows(cli):
    return cli.datamodule.splits["train"].indices


def test_data_settings_are_those_of_the_checkpoint_unless_given(render, tmp_path, caplog, capsys):
    with inside(render(model="mlp"), tmp_path):
        fit = command("train", "fit", *SMALL, "--data.seed=3", "--data.val_fraction=0.2")
        rows = fit.datamodule.splits["test"].indices
        cli = command("train", "test", *SMALL, "--ckpt_path=best")
        assert cli.datamodule.splits["test"].indices == rows
        assert "not in the configuration: data.val_fraction=0.2, data.seed=3" in caplog.text
        with pytest.raises(SystemExit) as stop:
            command("train", "test", *SMALL, "--ckpt_path=best", "--data.seed=0")
        assert "As given, not as in the checkpoint: data.seed=0 (there 3)" in caplog.text
        trained = set(trained_rows(fit))
        from data.digits import Digits

        other = Digits()
        other.setup("test")
        seen = trained & set(other.splits["test"].indices)
        assert f"trained on {len(seen)} of the {len(rows)} samples of the test" in str(stop.value)
        assert "data.seed 3, here it is 0: leave that out" in str(stop.value)
        # Another share for validation leaves the test split alone, but not the validation.
        command("train", "test", *SMALL, "--ckpt_path=best", "--data.val_fraction=0.5")
        with pytest.raises(SystemExit, match="samples of the val split"):
            command("train", "fit", *SMALL, "--ckpt_path=last", "--data.val_fraction=0.5")
        assert "To go on from there" not in capsys.readouterr().out  # it would be refused again
        [record] = yaml.safe_load(Path("logs/version_0/run.yaml").read_text())
        assert record["result"]["state"] == "finished"


def test_a_fit_goes_on_with_the_data_of_its_checkpoint(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        Path("own.py").write_text(
            "from data.digits import Digits\n\n\nclass Own(Digits):\n    test_fraction = 0.5\n"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            first = command("train", "fit", *SMALL, "--data=own.Own", "--data.batch_size=32")
            on = command("train", "fit", *SMALL, "--ckpt_path=last", "--trainer.max_epochs=2")
        assert type(on.datamodule).__name__ == "Own" and on.datamodule.batch_size == 32
        assert trained_rows(on) == trained_rows(first)


def test_of_long_facts_what_differs_is_told():
    from engine.facts import unlike

    columns = [{"name": str(i)} for i in range(100)]
    assert unlike(columns, columns[1:]) == "…[{'name': '0'}]…"
    assert unlike(["a"], ["b"]) == ["a"] and unlike(3, 4) == 3
