"""A table of runs; runs found by name; experiments and sweeps of W&B as files."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from projects import SMALL, command, inside
from templates import ROOT, SYSTEMS


def write_run(folder: Path, lr: float, optimizer: str, score: float, **label: object) -> None:
    folder.mkdir(parents=True)
    model = {"lr": lr, "optimizer": {"class_path": optimizer, "init_args": {"eps": 1e-8}}}
    config = {"seed_everything": 42, "model": {"init_args": model}}
    config["trainer"] = {"enable_progress_bar": lr > 0.05}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = {"state": "finished", "epochs": 5, "seconds": 75, "monitor": "val/acc", "mode": "max"}
    result |= {"best": score, "best_epoch": 3, "metrics": {"val/acc": score, "val/loss": 1 - score}}
    record = {"name": None, "tags": [], **label, "result": result}
    (folder / "run.yaml").write_text(yaml.safe_dump([record]))


@pytest.fixture
def compare(render, tmp_path):
    """`compare(*options)` gives the rows of the table that `compare.py` writes, by column."""
    with inside(render(model="mlp"), tmp_path):
        write_run(Path("logs/version_0"), 0.1, "torch.optim.SGD", 0.8, tags=["sgd", "short"])
        write_run(Path("logs/version_10"), 0.01, "torch.optim.AdamW", 0.95, name="mine")
        write_run(Path("logs/version_2/fold_0"), 0.01, "torch.optim.AdamW", 0.9)
        write_run(Path("logs/version_2/fold_1"), 0.01, "torch.optim.AdamW", 0.7)
        summary = "part,val/acc\nfold_0,0.9\nfold_1,0.7\nmean,0.8\ndeviation,0.1414\n"
        Path("logs/version_2/summary.csv").write_text(summary)

        def compare(*options: str) -> list[dict[str, str]]:
            command("compare", *options, "--csv=runs.csv")
            with open("runs.csv", newline="") as file:
                return list(csv.DictReader(file))

        yield compare


def test_a_run_whose_folder_was_renamed_is_found(compare):
    Path("logs/version_10").rename("logs/good")
    Path("logs/version_2").rename("logs/folds")
    Path("mine").mkdir()  # no run
    assert [row["run"] for row in compare("mine")] == ["good"]
    assert {"good", "folds", "folds/fold_1"} < {row["run"] for row in compare()}


def test_starts_in_a_moment_since_it_needs_no_torch(render):
    code = "import sys, engine.compare; print(*{'torch', 'lightning', 'numpy'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=render(), capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_of_a_run_that_went_on_its_newest_settings_count_without_what_the_data_told_it(compare):
    run = Path("logs/version_0")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = 9
    config["model"]["init_args"]["num_classes"] = 3
    (run / "config_1.yaml").write_text(yaml.safe_dump(config))
    first, *_ = sorted(compare(), key=lambda row: row["run"])
    assert (first["run"], first["trainer.max_epochs"]) == ("version_0", "9")
    assert "model.num_classes" not in first


def test_in_a_terminal_the_table_is_as_wide_as_that(compare, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    header = list(compare()[0])
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    assert len(blocks) > 1 and max(len(line) for block in blocks for line in block) <= 60
    assert [name for block in blocks for name in block[0].split()[1:]] == header[1:]
    assert all(
        [line.split()[0] for line in block[1:]]
        == ["version_0", "version_2", "version_2/fold_0", "version_2/fold_1", "version_10"]
        for block in blocks
    )
    assert "  SGD" in "\n".join(blocks[-1])


def test_an_argument_is_compared_where_its_class_is(compare):
    """`momentum` of one optimizer is no difference; of two fits with that optimizer it is."""
    path = Path("logs/version_0/config.yaml")
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["optimizer"]["init_args"]["momentum"] = 0.9
    path.write_text(yaml.safe_dump(config))
    assert "model.optimizer.momentum" not in compare()[0]
    config["model"]["init_args"]["optimizer"]["init_args"]["momentum"] = 0.5
    write_run(Path("logs/version_11"), 0.1, "torch.optim.SGD", 0.8)
    Path("logs/version_11/config.yaml").write_text(yaml.safe_dump(config))
    assert "model.optimizer.momentum" in compare()[0]


def test_what_differs_is_shown_and_what_does_not_is_not(compare, capsys):
    rows = compare()
    names = ["version_0", "version_2", "version_2/fold_0", "version_2/fold_1", "version_10"]
    assert [row["run"] for row in rows] == names
    assert {"model.lr", "model.optimizer", "name", "tags", "best", "epochs"} <= rows[0].keys()
    assert (
        not {"seed_everything", "model.optimizer.eps", "trainer.enable_progress_bar"}
        & rows[0].keys()
    )
    assert (rows[0]["model.lr"], rows[0]["tags"]) == ("0.1", "sgd,short")
    assert (rows[0]["time"], rows[0]["best_epoch"], rows[0]["best"]) == ("0:01:15", "3", "0.8")
    assert (rows[1]["val/acc"], rows[1]["state"]) == ("0.8", "mean of 2, val/acc ± 0.1414")
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    assert printed[-1].split()[:2] == ["version_10", "mine"]
    from engine.crossval import write_summary

    write_summary(Path("logs/version_2/summary.csv"), {"fold_0": {"val/acc": 0.7}})  # the first
    assert compare()[1]["state"] == "mean of 1, val/acc"


def test_sorts_filters_and_chooses(compare):
    assert [row["run"] for row in compare("--sort=best", "--filter=state=finished")] == [
        *("version_10", "version_2/fold_0", "version_0", "version_2/fold_1")
    ]
    assert [row["run"] for row in compare("--sort=val/loss", "--descending")][
        0
    ] == "version_2/fold_1"
    assert [row["run"] for row in compare("--filter=model.lr<0.05", "--filter=best>0.8")] == [
        *("version_2/fold_0", "version_10")
    ]
    assert [row["run"] for row in compare("--filter=tags=sgd")] == ["version_0"]
    assert [row["run"] for row in compare("mine", "logs/version_0")] == ["version_10", "version_0"]
    with pytest.raises(SystemExit, match="no such run under logs"):
        compare("--filter=tags=adam")
    with pytest.raises(SystemExit, match="--filter lr: give KEY=VALUE"):
        compare("--filter=lr")


def test_values_are_written_as_in_a_configuration(compare):
    config = yaml.safe_load(Path("logs/version_0/config.yaml").read_text())
    own = {"scheduler": None, "compile": True, "hidden_dims": [8, 8]}
    config["model"]["init_args"] |= own
    Path("logs/version_0/config.yaml").write_text(yaml.safe_dump(config))
    for text in ("compile=true", "compile = True", "hidden_dims=[8,8]", "lr == 1e-1"):
        assert [row["run"] for row in compare(f"--filter=model.{text}")] == ["version_0"]
    missing = [row["run"] for row in compare("--filter=model.compile=null", "--filter=best>0")]
    assert missing == ["version_2", "version_2/fold_0", "version_2/fold_1", "version_10"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sort=lr"], "no run has lr. Did you mean model.lr"),
        (["--filter=model.lrr<1"], "no run has model.lrr. Did you mean model.lr"),
        (["version_0", "version_9"], "version_9: no folder or name of a run under logs"),
        (["version_0", "logs"], "logs: no folder or name of a run under logs"),
    ],
)
def test_a_word_that_is_not_known_is_not_left_out(compare, options, message):
    assert [row["run"] for row in compare("version_0")] == ["version_0"]
    with pytest.raises(SystemExit, match=message):
        compare(*options)


def test_experiments_go_together(render, tmp_path):
    project = render(model="mlp")
    with inside(project, tmp_path):
        files = [f"--config={project}/configs/experiment/{n}.yaml" for n in ("sgd", "short")]
        cli = command("train", "fit", *SMALL, *files, "--trainer.fast_dev_run=true")
        assert type(cli.trainer.optimizers[0]).__name__ == "SGD"
        assert cli.model.lr == 0.05
        assert cli.config.fit.tags == ["sgd", "short"]
        assert cli.settings.count("max_epochs: 3\n") == 1


def test_the_sweep_file_of_wandb_gives_options_that_are_taken(render, tmp_path):
    project = render(model="mlp", logger="wandb")
    sweep = yaml.safe_load((project / "configs" / "sweep" / "wandb.yaml").read_text())
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    first, *fixed, last = sweep["command"]
    assert (first, fixed[:2], last) == ("${env}", ["${interpreter}", "${program}"], "${args}")
    first_values = {k: {"value": d.get("min", d.get("values", [0])[0])}
                    for k, d in sweep["parameters"].items()}  # fmt: skip
    arguments = create_sweep_command_args({"args": first_values})["args"]
    with inside(project, tmp_path):
        cli = command("train", *fixed[2:], *arguments, *SMALL, "--trainer.fast_dev_run=true")
        assert cli.model.lr == sweep["parameters"]["model.lr"]["min"]
        assert cli.datamodule.batch_size == 8  # of SMALL, which comes later
        assert cli.config.fit.best_checkpoint.monitor == sweep["metric"]["name"]
        assert cli.config.fit.best_checkpoint.mode == sweep["metric"]["goal"][:3]


@pytest.mark.parametrize("system", SYSTEMS)
def test_sweeps_of_wandb_look_at_the_metric_of_the_system(system):
    text = (ROOT / "{{cookiecutter.project_slug}}" / "models" / f"{system}.py").read_text("utf-8")
    monitor = re.search(r'^    monitor = "(.+)"', text, re.MULTILINE)
    metric = SYSTEMS[system].get("sweep_metric", "val/loss")
    assert metric == (monitor[1] if monitor else "val/loss")
    goal = SYSTEMS[system].get("sweep_goal", "minimize")
    assert goal == ("maximize" if '    mode = "max"' in text else "minimize")
