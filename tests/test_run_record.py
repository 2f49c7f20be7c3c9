"""What a run folder says about what ran."""

import importlib.metadata
from pathlib import Path

import pytest
import yaml
from projects import SMALL, command, git, inside

RUN = Path("logs/version_0")


def commit_all(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "all")


@pytest.fixture
def project(render, tmp_path):
    """A project under git, and another repository that is the current folder."""
    project = render(copy=True)
    commit_all(project)
    commit_all(tmp_path)
    with inside(project, tmp_path):
        yield project


def fit(*options: str) -> None:
    command("train", "fit", *SMALL, *options)


def records() -> list[dict]:
    return yaml.safe_load((RUN / "run.yaml").read_text("utf-8"))


def test_the_difference_can_be_applied_whatever_the_encoding(project):
    git(project, "rm", "--quiet", ".gitattributes")  # it has git write its own line ends
    git(project, "commit", "--message=Line ends as they are")
    changed = project / "train.py"
    before = changed.read_bytes()
    after = before + b"# caf\xe9\r\n"
    changed.write_bytes(after)
    fit("--trainer.max_epochs=1")
    changed.write_bytes(before)
    git(project, "apply", str(RUN.absolute() / "uncommitted.diff"))
    assert changed.read_bytes() == after


def test_a_package_without_a_name_is_left_out(project, monkeypatch):
    """A folder that a broken removal has left."""
    found = [*importlib.metadata.distributions()]
    Path("nameless-1.0.dist-info").mkdir()
    found.append(importlib.metadata.Distribution.at("nameless-1.0.dist-info"))
    assert not found[-1].metadata
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
    fit("--trainer.max_epochs=1")
    assert "torch" in records()[0]["packages"]


def test_each_part_of_a_run_has_its_own_record(project, capsys):
    notes = project / "train.py"
    notes.write_text(notes.read_text("utf-8") + "# first\n", "utf-8")
    fit("--trainer.max_epochs=1", "--model.lr=0.0042")
    config = (RUN / "config.yaml").read_text("utf-8")
    notes.write_text(notes.read_text("utf-8") + "# second\n", "utf-8")
    fit("--trainer.max_epochs=2", "--ckpt_path=last")
    git(project, "commit", "--quiet", "--all", "--message", "both")
    fit("--trainer.max_epochs=3", "--ckpt_path=last")

    first, second, third = records()
    assert "# second" not in (RUN / first["git_diff"]).read_text("utf-8")
    assert "# second" in (RUN / second["git_diff"]).read_text("utf-8")
    assert "git_diff" not in third
    assert first["git_commit"] == second["git_commit"] != third["git_commit"]
    assert (RUN / "config.yaml").read_text("utf-8") == config, "it starts the whole run anew"
    assert "ckpt_path" not in yaml.safe_load(config)
    settings = [yaml.safe_load((RUN / f"config_{part}.yaml").read_text("utf-8")) for part in (1, 2)]
    assert [each["trainer"]["max_epochs"] for each in settings] == [2, 3]
    fit("--trainer.max_epochs=3", "--ckpt_path=last")  # with the same settings
    assert not (RUN / "config_3.yaml").exists()
    capsys.readouterr()
    assert [each["model"]["init_args"]["lr"] for each in settings] == [0.0042, 0.0042]
    command("compare", "--filter=trainer.max_epochs=3")
    assert "version_0" in capsys.readouterr().out


def test_a_fit_that_ends_before_a_validation_says_how_to_have_one(
    render, tmp_path, capsys, recwarn
):
    with inside(render(model="mlp"), tmp_path):
        fit("--trainer.max_steps=1")
        assert (
            "Best epoch: none, since nothing has measured val/brier; see trainer."
            in capsys.readouterr().out
        )
        assert not [one for one in recwarn if "monitored" in str(one.message)]
        fit("--trainer.max_steps=1", "--trainer.val_check_interval=1")  # as it says
        assert Path("logs/version_1/checkpoints/best.ckpt").is_file()
        fit("--trainer.max_epochs=1", "--trainer.enable_checkpointing=false")  # it is measured
        assert "nothing has measured" not in capsys.readouterr().out


def test_the_best_checkpoint_of_an_older_run_is_not_taken_for_the_newest(project, caplog):
    from engine.errors import UserError
    from engine.runs import find_checkpoint

    root = Path("logs")
    for path in ("version_0/checkpoints/best.ckpt", "version_9/checkpoints/last.ckpt"):
        (root / path).parent.mkdir(parents=True)
        (root / path).touch()
    (root / "version_10").mkdir()  # has saved nothing yet
    assert find_checkpoint("last", "best", root) == root / "version_9/checkpoints/last.ckpt"
    assert caplog.messages == ["The newest run, logs/version_10, has no checkpoint"]
    with pytest.raises(UserError, match="best: no checkpoint there.*\n.*version_0.*\n.*version_9"):
        find_checkpoint("best", "best", root)
    with pytest.raises(UserError, match=r"no best.ckpt there. The newest of 1:\n.*9/.*/last.ckpt$"):
        find_checkpoint("version_9", "best", root)
    for number in range(10, 20):
        path = root / f"version_{number}/checkpoints/best.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(UserError, match="newest of 12:(\n.*/version_1[4-9].*){6}$"):
        find_checkpoint("nowhere", "best", root)
