"""A sweep is searched, stopped, killed and continued; what it finds can be trained."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from projects import SMALL, command, inside, is_running, wait_for

STORAGE = "sqlite:///logs/sweeps.db"
SPACE = {
    "model.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "model.network.hidden_dims": {"type": "categorical", "choices": ["[8]", "[8, 8]"]},
    "data.batch_size": {"type": "int", "low": 8, "high": 16, "step": 8},
    # The class before its argument, which the default's argument of the same name must not reach.
    "model.optimizer": {"type": "categorical", "choices": ["torch.optim.SGD", "torch.optim.AdamW"]},
    "model.optimizer.weight_decay": {"type": "categorical", "choices": [0.0, 0.1]},
}
SETTINGS = dict(option.removeprefix("--").split("=") for option in SMALL)
# The commands quieten them already.
SETTINGS = {k: v for k, v in SETTINGS.items() if not k.startswith("trainer.enable_")}

LOGGERS = ("lightning.fabric", "lightning.pytorch")  # a sweep makes them quiet


@pytest.fixture
def folder(render, tmp_path):
    """An empty folder in which a project's commands can be run and a `sweep.yaml`."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with inside(render(model="mlp"), tmp_path):
        write_config(Path("sweep.yaml"))
        yield tmp_path
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def write_config(path: Path, max_epochs: int = 1, **changes: object) -> None:
    settings = SETTINGS | {"trainer.max_epochs": max_epochs}
    path.write_text(yaml.safe_dump({"space": SPACE, "settings": settings, **changes}))


def trials(name: str = "default") -> list[optuna.trial.FrozenTrial]:
    try:
        return optuna.load_study(study_name=name, storage=STORAGE).trials
    except KeyError:  # not made yet
        return []


def finished() -> dict[int, object]:
    """By number, with all that must not change any more."""
    ends = [trial for trial in trials() if trial.state.name in ("COMPLETE", "PRUNED")]
    return {trial.number: (trial.params, trial.values, trial.datetime_complete) for trial in ends}


def test_searches_continues_and_writes_the_best(folder, capsys, monkeypatch):
    seeds = []
    sampler = optuna.samplers.TPESampler

    def seeded(seed: int | None = None, **options: object) -> optuna.samplers.TPESampler:
        seeds.append(seed)
        return sampler(seed=seed, **options)

    monkeypatch.setattr(optuna.samplers, "TPESampler", seeded)
    # Options of train.py, and a file of them, beside those of the sweep.
    Path("of_train.yaml").write_text("model:\n  init_args:\n    decay_all: true\n")
    sweep = ["sweep", "--config=sweep.yaml", "--config", "of_train.yaml", "--data.seed", "3"]
    command(*sweep, "--trials=2")
    output = capsys.readouterr().out
    assert [line.split(":")[0] for line in output.splitlines()[:2]] == ["1/2", "2/2"]
    first = finished()
    assert len(first) == 2
    # That of the trial's number: no other sweep.py on the same study draws the same.
    assert [seed for seed in seeds if seed is not None] == [0, 1]

    command(*sweep, "--trials=2")
    assert "Study default has its 2 trials" in capsys.readouterr().out
    assert finished() == first
    with pytest.raises(SystemExit, match="Study default has another space, settings or metric"):
        command("sweep", "--config=sweep.yaml", "--trials=3")
    command(*sweep, "--trials=3")
    assert len(finished()) == 3
    assert finished().items() > first.items()

    for trial in trials():
        run = Path(trial.user_attrs["run"])
        config = yaml.safe_load((run / "config.yaml").read_text())
        model = config["model"]["init_args"]
        assert (model["decay_all"], config["data"]["init_args"]["seed"]) == (True, 3)
        assert config["trainer"]["max_epochs"] == 1
        assert config["tags"] == ["default"]
        assert model["lr"] == trial.params["model.lr"]
        assert model["optimizer"]["class_path"] == trial.params["model.optimizer"]
        assert (run / "checkpoints/best.ckpt").is_file()
        assert (run / "checkpoints/last.ckpt").is_file()
        assert list(run.glob("events.*"))
    assert len(list(Path("logs").glob("version_*"))) == 3

    best = min(trials(), key=lambda trial: trial.value)
    output = capsys.readouterr().out
    assert f"in trial {best.number}, {best.user_attrs['run']}" in output
    assert Path("logs/default/history.png").read_bytes().startswith(b"\x89PNG")
    # A whole fit: of full length, with a bar and a summary.
    written = yaml.safe_load(Path("logs/default/best.yaml").read_text())
    short = {"max_epochs", "devices", "enable_progress_bar", "limit_train_batches"}
    assert not short & written["trainer"].keys()
    assert "tags" not in written
    fitted = command("train", "fit", "--config=logs/default/best.yaml", "--trainer.fast_dev_run=1")
    assert fitted.trainer.progress_bar_callback is not None
    assert fitted.model.decay_all
    assert fitted.model.lr == best.params["model.lr"]
    assert fitted.datamodule.batch_size == best.params["data.batch_size"]


def test_direction_and_metric_are_those_of_the_best_checkpoint(folder, capsys):
    settings = SETTINGS | {
        "trainer.max_epochs": 1,
        "best_checkpoint.monitor": "val/loss",
        "best_checkpoint.mode": "min",
    }
    write_config(Path("sweep.yaml"), settings=settings)
    command("sweep", "--config=sweep.yaml", "--trials=2", "--study=loss")
    study = optuna.load_study(study_name="loss", storage=STORAGE)
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert f"Best: val/loss {min(t.value for t in study.trials):.4g}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another space, settings or metric"):
        write_config(Path("sweep.yaml"))
        command("sweep", "--config=sweep.yaml", "--trials=3", "--study=loss")


def test_prunes_by_the_validation_metric(folder, capfd):
    threshold = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 2}}
    write_config(Path("sweep.yaml"), max_epochs=3, pruner=threshold)
    with pytest.raises(SystemExit, match="Every trial was stopped early"):
        command("sweep", "--config=sweep.yaml", "--trials=2")
    assert [(t.state.name, list(t.intermediate_values)) for t in trials()] == [("PRUNED", [0])] * 2
    output, errors = capfd.readouterr()
    assert [line.split(",")[0] for line in output.splitlines()] == [
        f"1/2: trial 0 pruned: val/brier {trials()[0].value:.4g}",
        f"2/2: trial 1 pruned: val/brier {trials()[1].value:.4g}",
    ]
    assert errors == ""


def test_the_same_parameters_are_not_fitted_again(folder):
    space = {"data.batch_size": {"type": "categorical", "choices": [8]}}
    write_config(Path("sweep.yaml"), space=space)
    command("sweep", "--config=sweep.yaml", "--trials=3")
    assert len(finished()) == 3
    assert [run.name for run in Path("logs").glob("version_*")] == ["version_0"]


def test_the_best_settings_outlive_their_run(folder, capsys, monkeypatch):
    """Deleted, its folder comes to be that of a later trial."""
    space = {"model.lr": {"type": "float", "low": 1e-4, "high": 1e-2}}
    write_config(Path("sweep.yaml"), space=space)
    command("sweep", "--config=sweep.yaml", "--trials=1")
    shutil.rmtree("logs/version_0")
    from engine import sweep

    fit = sweep.fit
    monkeypatch.setattr(sweep, "fit", lambda *given: 9.0 + 0 * fit(*given))  # a worse one
    command("sweep", "--config=sweep.yaml", "--trials=2")
    written = yaml.safe_load(Path("logs/default/best.yaml").read_text())
    assert written["model"]["init_args"]["lr"] == trials()[0].params["model.lr"]
    assert Path("logs/version_0").exists()
    assert capsys.readouterr().out.count("in trial 0, whose run is gone") == 1


def test_trials_of_other_processes_count(folder, monkeypatch):
    from engine import sweep

    fit = sweep.fit

    def fit_beside_another(trial, settings):
        study = optuna.load_study(study_name="default", storage=STORAGE)
        study.add_trial(optuna.trial.create_trial(value=9.0, user_attrs={"run": "elsewhere"}))
        return fit(trial, settings)

    monkeypatch.setattr(sweep, "fit", fit_beside_another)
    command("sweep", "--config=sweep.yaml", "--trials=4")
    assert len(finished()) == 4


def test_scores_of_other_settings_are_not_compared(folder):
    command("sweep", "--config=sweep.yaml", "--trials=1")
    write_config(Path("sweep.yaml"), max_epochs=2)
    with pytest.raises(SystemExit, match="Study default has another space, settings or metric"):
        command("sweep", "--config=sweep.yaml", "--trials=2")


def test_a_failing_trial_does_not_end_the_sweep(folder, monkeypatch):
    space = {"model.lr": {"type": "float", "low": 0.0, "high": 1.0}}
    write_config(Path("sweep.yaml"), space=space)
    from engine import sweep

    fit, calls = sweep.fit, []

    def fail_at_first(trial, settings):
        calls.append(trial.number)
        if len(calls) == 1:
            raise MemoryError("too large")
        return fit(trial, settings)

    monkeypatch.setattr(sweep, "fit", fail_at_first)
    command("sweep", "--config=sweep.yaml", "--trials=2")
    assert [t.state.name for t in trials()] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_mistake_in_a_trial_is_one_line(folder, capsys):
    space = {"data.batch_size": {"type": "int", "low": 0, "high": 0}}
    write_config(Path("sweep.yaml"), space=space)
    with pytest.raises(SystemExit, match="None of 1 trials came to an end"):
        command("sweep", "--config=sweep.yaml", "--trials=1")
    [line] = [one for one in capsys.readouterr().err.splitlines() if "failed" in one]
    assert "{'data.batch_size': 0}: batch_size is 0: it must be 1 or more, or auto. (data/" in line


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"model.lr": {"type": "flot", "low": 0.0, "high": 1.0}},
            "model.lr: .*give its type: float",
        ),
        ({"model.lr": {"type": "float", "low": 0.0}}, "model.lr: .*high"),
        ({"model.lr": {"low": 0.0, "high": 1.0}}, "model.lr: .*give its type: float"),
    ],
)
def test_a_space_that_is_wrong_is_a_sentence(folder, space, message):
    write_config(Path("sweep.yaml"), space=space)
    with pytest.raises(SystemExit, match=f"^error: space: {message}"):
        command("sweep", "--config=sweep.yaml", "--trials=1")


@pytest.mark.parametrize("name", ["workers", "trials"])
def test_none_of_them_are_refused(folder, name, capsys):
    with pytest.raises(SystemExit, match=f"--{name} 0: it must be 1 or more"):
        command("sweep", f"--{name}=0")
    with pytest.raises(SystemExit):
        command("sweep", f"--{name}=x")
    assert capsys.readouterr().err == f"error: {name}: expected int. Got value: x\n"


@pytest.mark.parametrize(
    "when",
    [
        {"model.optimizer": "torch.optim.Rprop"},  # none of its choices
        {"data.batch_size": 8},  # below
        {"model.lr": 0.1},  # no choice
        "torch.optim.SGD",
    ],
)
def test_a_condition_that_is_never_met_is_refused(folder, when):
    momentum = {"type": "float", "low": 0.0, "high": 0.9, "when": when}
    space = {name: SPACE[name] for name in ("model.lr", "model.optimizer")}
    space |= {"model.optimizer.momentum": momentum, "data.batch_size": SPACE["data.batch_size"]}
    write_config(Path("sweep.yaml"), space=space)
    with pytest.raises(
        SystemExit, match="^error: space: model.optimizer.momentum: .* not understood"
    ):
        command("sweep", "--config=sweep.yaml", "--trials=1")


def test_each_choice_has_to_take_the_arguments_of_all(folder, capsys):
    """Else the search would end at the first trial that draws the other."""
    optimizers = ["torch.optim.SGD", "torch.optim.Adam"]
    space = {
        "model.optimizer": {"type": "categorical", "choices": optimizers},
        "model.optimizer.momentum": {"type": "float", "low": 0.0, "high": 0.9},
    }
    write_config(Path("sweep.yaml"), space=space)
    for _ in range(2):  # whichever is drawn first
        with pytest.raises(SystemExit):
            command("sweep", "--config=sweep.yaml", "--trials=1")
        assert "momentum" in capsys.readouterr().err
    assert not Path("logs/version_0").exists()


def test_what_only_some_choices_take_is_drawn_beside_them(folder, capsys):
    """As `if optimizer == "SGD": trial.suggest_float("momentum", ...)` with Optuna itself."""
    sgd, adam, adamw = (f"torch.optim.{name}" for name in ("SGD", "Adam", "AdamW"))
    both = {"model.optimizer": [adam, adamw], "model.decay_all": False}
    space = {
        "model.decay_all": {"type": "categorical", "choices": [False]},
        "model.optimizer": {"type": "categorical", "choices": [sgd, adam, adamw]},
        "model.optimizer.momentum": {
            **{"type": "float", "low": 0.5, "high": 0.9},
            "when": {"model.optimizer": sgd},
        },
        "model.optimizer.amsgrad": {"type": "categorical", "choices": [False, True], "when": both},
    }
    write_config(Path("sweep.yaml"), space=space)
    command("sweep", "--config=sweep.yaml", "--trials=2")
    first = finished()
    command("sweep", "--config=sweep.yaml", "--trials=6")
    assert len(finished()) == 6 and finished().items() > first.items()
    drawn = [trial.params for trial in trials()]
    assert len({params["model.optimizer"] for params in drawn}) > 1
    for params in drawn:
        own = "momentum" if params["model.optimizer"] == sgd else "amsgrad"
        assert [*params][1:] == ["model.optimizer", f"model.optimizer.{own}"]
    best = optuna.load_study(study_name="default", storage=STORAGE).best_trial.params
    optimizer = yaml.safe_load(Path("logs/default/best.yaml").read_text())["model"]["init_args"][
        "optimizer"
    ]
    assert optimizer["class_path"] == best.pop("model.optimizer")
    assert best.pop("model.decay_all") is False
    [(key, value)] = best.items()
    assert optimizer["init_args"][key.rpartition(".")[2]] == value
    # Each choice is looked at before the search, with what it takes: here one that it does not.
    space["model.optimizer.momentum"]["when"] = both
    write_config(Path("sweep.yaml"), space=space)
    with pytest.raises(SystemExit):
        command("sweep", "--config=sweep.yaml", "--study=other")
    assert "momentum" in capsys.readouterr().err and not trials("other")


def test_choices_are_read_once_and_judged_by_one_score(folder, monkeypatch):
    from engine import sweep

    read, given = sweep.read_options, []
    monkeypatch.setattr(sweep, "read_options", lambda words: [given.append(words), read(words)][1])
    monitor = {"type": "categorical", "choices": ["val/loss", "val/brier", "auto"]}
    write_config(Path("sweep.yaml"), space={"best_checkpoint.monitor": monitor})
    with pytest.raises(
        SystemExit, match="by several metrics.* give one, as --best_checkpoint.monitor"
    ):
        command("sweep", "--config=sweep.yaml", "--trials=1")
    assert len(given) == len({*map(tuple, given)}) == 3


def test_an_unknown_key_is_named(folder, capsys):
    write_config(
        Path("sweep.yaml"), space={"model.lrr": {"type": "float", "low": 0.0, "high": 1.0}}
    )
    with pytest.raises(SystemExit):
        command("sweep", "--config=sweep.yaml", "--trials=1")
    assert "lrr" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("sweep", "--trails=1")
    assert "Did you mean --trials?" in capsys.readouterr().err


def children(pid: int) -> list[int]:
    output = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    ).stdout
    return [int(line) for line in output.split()]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_it_continues_and_repeats_no_finished_trial(render, folder):
    project = render(model="mlp")
    write_config(Path("sweep.yaml"), max_epochs=4)
    arguments = ["--config=sweep.yaml", "--workers=2", "--trials=1000"]
    process = subprocess.Popen([sys.executable, str(project / "sweep.py"), *arguments])
    try:
        deadline = time.monotonic() + 240
        # Until there is a run the database may be without its tables.
        while not Path("logs/version_0").exists() or len(finished()) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.5)
        workers = children(process.pid)
        assert len(workers) >= 2
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any(map(is_running, workers)), 10, "ending of the sweep's workers")
    before = finished()

    count = len(before) + 2
    command("sweep", "--config=sweep.yaml", f"--trials={count}")
    assert len(finished()) == count
    assert finished().items() > before.items()
    parameters = [str(trial.params) for trial in trials()]
    assert len(set(parameters)) == len(parameters)


def test_two_sweeps_start_at_once_on_one_study(render, folder):
    project = render(model="mlp")
    arguments = ["--config=sweep.yaml", "--trials=4"]
    words = [sys.executable, str(project / "sweep.py"), *arguments]
    sweeps = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=240) for process in sweeps] == [0, 0]
    assert len(finished()) >= 4


def test_one_setting_can_be_given_and_of_several_none_is_lost(folder):
    """jsonargparse would keep the last of them only."""
    options = ["--settings.trainer.max_epochs=2", "--settings.trainer.num_nodes=1"]
    with pytest.raises(SystemExit, match="only the last --settings.KEY would count"):
        command("sweep", "--config=sweep.yaml", *options)
    command("sweep", "--config=sweep.yaml", "--trials=1", options[0])
    config = yaml.safe_load(Path("logs/version_0/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2


def test_a_batch_size_that_follows_from_the_size_of_the_data_is_not_searched(render):
    """Ten epochs of a hundred rows would be ten steps with some of its values."""
    for data, searched in {"digits": True, "csv": False}.items():
        for name, key in {"default": "space", "wandb": "parameters"}.items():
            path = render(data=data, logger="wandb") / "configs" / "sweep" / f"{name}.yaml"
            space = yaml.safe_load(path.read_text())[key]
            assert ("data.batch_size" in space) is searched
            assert {"model.lr", "model.optimizer.weight_decay"} <= space.keys()
