"""Every fold is a run of its own; mean and deviation are those of their best values."""

import csv
import re
import statistics
from pathlib import Path

import pytest
import torch
import yaml
from projects import SMALL, command, inside


def best_value(run: Path) -> float:
    states = torch.load(run / "checkpoints/best.ckpt")["callbacks"]
    [best] = [state for state in states.values() if state.get("monitor") == "val/brier"][:1]
    return best["best_model_score"].item()


@pytest.mark.slow  # each fold imports everything in a process of its own
def test_fits_each_fold_and_prints_mean_and_deviation(render, tmp_path, capfd):
    with inside(render(model="mlp"), tmp_path):
        command("crossval", "--folds", "2", *SMALL, "--trainer.max_epochs=1", "--name=both")
        output = capfd.readouterr().out
        runs = [Path("logs/version_0/fold_0"), Path("logs/version_0/fold_1")]
        assert [path.name for path in Path("logs").glob("version_*")] == ["version_0"]
        for fold, run in enumerate(runs):
            data = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]
            assert (data["num_folds"], data["fold"]) == (2, fold)
            assert (run / "checkpoints/last.ckpt").is_file()
            [record] = yaml.safe_load((run / "run.yaml").read_text())
            assert record["name"] == f"both/fold_{fold}"
        # Of a fold no commands are told: what comes next is of all of them.
        assert output.count("Best epoch:") == 2 and "train.py test" not in output
        for command_line in (["test"], ["fit", "--ckpt_path=last"]):
            with pytest.raises(
                SystemExit, match="version_0, has several fits: name one, as in .*_0"
            ):
                command("train", *command_line, *SMALL)
        values = [best_value(run) for run in runs]
        printed = [
            float(value) for value in re.findall(r"val/brier (\d\.\d{4})$", output, re.MULTILINE)
        ]
        assert printed == pytest.approx(values, abs=1e-4)
        mean, deviation = re.findall(r"val/brier: mean (\S+), deviation (\S+)", output)[0]
        assert float(mean) == pytest.approx(statistics.mean(values), abs=1e-4)
        assert float(deviation) == pytest.approx(statistics.stdev(values), abs=1e-4)
        assert re.search(r"^val/acc: mean \d\.\d{4}, deviation", output, re.MULTILINE)
        with open("logs/version_0/summary.csv", newline="") as file:
            rows = {row["part"]: row for row in csv.DictReader(file)}
        assert [*rows] == ["fold_0", "fold_1", "mean", "deviation"]
        found = [float(row["val/brier"]) for row in rows.values()]
        assert found == [*values, statistics.mean(values), statistics.stdev(values)]
        assert 0 <= float(rows["mean"]["val/acc"]) <= 1


@pytest.mark.slow
def test_seeds_differ_in_the_seed_alone(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        options = [*SMALL, "--trainer.max_epochs=1", "--test_after_fit=true"]
        command("crossval", "--seeds", "2", *options)
        runs = [Path("logs/version_0/seed_0"), Path("logs/version_0/seed_1")]
        first, second = (yaml.safe_load((run / "config.yaml").read_text()) for run in runs)
        assert (first.pop("seed_everything"), second.pop("seed_everything")) == (0, 1)
        assert first == second
        with open("logs/version_0/summary.csv", newline="") as file:
            rows = {row["part"]: row for row in csv.DictReader(file)}
        assert {"val/brier", "val/acc", "test/acc"} <= rows["seed_0"].keys()
        assert rows["seed_0"]["val/brier"] != rows["seed_1"]["val/brier"]


@pytest.mark.slow
def test_a_mistake_in_a_fold_is_told_in_its_sentence(render, tmp_path, capfd):
    with inside(render(model="mlp"), tmp_path), pytest.raises(SystemExit):
        command("crossval", "--folds=2", *SMALL, "--model.network.hidden_dim=3")
    assert "hidden_dim" in capfd.readouterr().err
    assert not (tmp_path / "logs").exists()


def test_a_figure_that_is_no_number_has_no_deviation(render, tmp_path):
    """Such as the area under the curve of samples of one class."""
    with inside(render(model="mlp"), tmp_path):
        from engine.crossval import write_summary

        scores = {"fold_0": {"val/loss": 1.0, "val/auroc": float("nan")}}
        scores["fold_1"] = {"val/loss": 3.0, "val/auroc": 0.5}
        write_summary(Path("summary.csv"), scores)
        *_, mean, deviation = Path("summary.csv").read_text().splitlines()
        assert (mean, deviation) == ("mean,2.0,nan", f"deviation,{2**0.5},nan")


@pytest.mark.parametrize(
    ("option", "message"),
    [("--folds=1", "--folds is 1: it must be 2 or more"), ("--fold=3", "Did you mean --folds?")],
)
def test_one_fold_is_refused(option, message, render, tmp_path, capsys):
    with inside(render(model="mlp"), tmp_path), pytest.raises(SystemExit):
        command("crossval", option)
    assert message in capsys.readouterr().err


def test_going_on_from_a_checkpoint_is_refused(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        with pytest.raises(SystemExit, match="--ckpt_path: each fit is a new one"):
            command("crossval", "--seeds=2", "--ckpt_path=best")


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("--seeds=2", "--seed_everything=5"),
        ("--folds=2", "--data.fold=1"),
        ("--folds=2", "--data.init_args.num_folds=3"),
    ],
)
def test_what_each_fit_has_of_its_own_is_refused(render, tmp_path, kind, option):
    with inside(render(model="mlp"), tmp_path):
        with pytest.raises(SystemExit, match=f"{option} would not count: {kind[:7]} 2 sets it"):
            command("crossval", kind, option)


@pytest.mark.parametrize("script", ["crossval", "sweep"])
def test_fits_without_a_best_score_are_refused_before_the_first(render, tmp_path, script):
    with inside(render(model="mlp"), tmp_path):
        with pytest.raises(SystemExit, match="There would be no best score to compare"):
            command(script, "--best_checkpoint.save_top_k=0", "--data.augment=false")
        assert not Path("logs/version_0").exists()


def test_more_folds_than_samples_are_refused_before_the_first_fit(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        with pytest.raises(SystemExit, match="2000 folds of 1433 samples: some would be empty"):
            command("train", "fit", *SMALL, "--data.num_folds=2000", "--data.fold=0")
        assert not Path("logs/version_0").exists()


def test_data_without_folds_is_refused_with_what_works(render, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "from lightning.pytorch import LightningDataModule\n"
        "class Plain(LightningDataModule):\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with inside(render(model="mlp"), tmp_path):
        with pytest.raises(SystemExit, match="own.Plain takes no num_folds and fold; --seeds 3"):
            command("crossval", "--folds=3", "--data=own.Plain")
        assert not Path("logs").exists()
