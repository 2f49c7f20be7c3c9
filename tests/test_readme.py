"""The READMEs say what is so: their commands run, their tables are those of the benchmarks."""

import csv
import html
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from projects import SMALL, command, inside, small_data
from templates import CELLS, DATA, ROOT, SETTINGS


def blocks(readme: Path, language: str = "bash") -> list[str]:
    text = readme.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(readme: Path) -> list[list[str]]:
    lines = "\n".join(blocks(readme)).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.nightly
def test_the_commands_of_a_project_run(render):
    """Each in turn, as pasted; only the number of batches is cut."""
    project = render(copy=True)
    with inside(project):
        ran = 0
        for words in commands(project / "README.md"):
            if words[:3] == ["python", "-m", "pip"]:
                continue  # `make demo` installs a project
            assert words[0] == "python", words
            script, *options = words[1:]
            if script == "train.py":
                if not options or options[0].startswith("-"):
                    options.insert(0, "fit")
                if any(option.endswith(("help", "--print_config")) for option in options):
                    with pytest.raises(SystemExit) as stop:
                        command("train", *options)
                    assert not stop.value.code
                else:
                    command("train", options[0], *SMALL, "--trainer.max_epochs=1", *options[1:])
            else:
                arguments = [sys.executable, script, *options]
                arguments += [*SMALL, "--trainer.max_epochs=1"] if script == "crossval.py" else []
                result = subprocess.run(arguments, capture_output=True, text=True)
                assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
            ran += 1
        assert ran > 10


@pytest.mark.parametrize(("data", "model"), [pytest.param(*c, id="-".join(c)) for c in CELLS])
def test_the_python_of_a_project_names_what_is_there(render, data, model):
    project = render(data=data, model=model)
    found = "".join(blocks(project / "README.md", "python"))
    assert "trainer.fit(system" in found
    with inside(project):
        starts = ("from ", "import ")
        exec("\n".join(line for line in found.splitlines() if line.startswith(starts)), {})


def test_the_example_that_runs_an_exported_file_gives_what_predict_gives(render, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    project = render(data="image_folder", model="mlp")
    [example] = [b for b in blocks(project / "README.md", "python") if "onnxruntime" in b]
    with inside(project, tmp_path):
        options = [*SMALL, *small_data("image_folder", tmp_path / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        path = tmp_path / "wide.png"  # cropped and made smaller, and transparent in places
        image = Image.radial_gradient("L").resize((60, 24), box=(0, 80, 200, 160))
        Image.merge("LA", (image, image)).save(path)
        command("train", "predict", *options, f"--data.predict_dir={path}", "--ckpt_path=best")
        with open("logs/version_0/predictions.csv", newline="", encoding="utf-8") as file:
            [row] = csv.DictReader(file)
        sys.argv = ["export.py", "best", "--format=onnx", "--output=model.onnx"]
        command("export", *sys.argv[1:], *options[-2:])
        capsys.readouterr()
        sys.argv = ["example.py", str(path)]
        exec(example, {})
    name, probability = capsys.readouterr().out.split()
    assert name == row["prediction_name"]
    assert float(probability) == pytest.approx(float(row[f"probability_{name}"]), abs=1e-4)


def test_the_commands_of_the_template_exist():
    """`make demo` and `make test` are what CI runs; here: every target and file that is named."""
    text = (ROOT / "README.md").read_text("utf-8") + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in set(re.findall(r"benchmarks/\w+\.py", text)):
        assert (ROOT / script).is_file(), script


def test_the_answers_shown_are_those_of_the_template(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import questions_table

    _, inside, _ = questions_table.split(questions_table.README.read_text("utf-8"))
    assert inside == questions_table.table(), (
        "README.md differs from cookiecutter.json: run python benchmarks/questions_table.py --write"
    )


def test_the_kinds_of_data_name_each_data_set():
    _, _, text = (ROOT / "README.md").read_text("utf-8").partition("## The kinds of data\n")
    section, *_ = text.partition("\n## ")
    missing = [name for name in DATA if f"`{name}`" not in section]
    assert missing == [], 'name them in README.md, "The kinds of data"'


@pytest.mark.parametrize("prompt", ["data", "model"])
def test_the_picture_of_the_prompts_shows_the_choices(prompt):
    picture = (ROOT / "docs" / "prompts.svg").read_text("utf-8")
    shown = html.unescape(re.sub("<[^>]+>", "", picture)).replace("\xa0", " ")
    labels = [text for name, text in SETTINGS["__prompts__"][prompt].items() if name[0] != "_"]
    assert [label for label in labels if label not in shown] == [], "python benchmarks/pictures.py"


def test_the_version_recorded_is_that_of_the_template():
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert SETTINGS["_version"] == found[1]


def test_the_example_of_answers_renders(render):
    [example] = [words for words in commands(ROOT / "README.md") if "--no-input" in words]
    answers = dict(word.split("=", 1) for word in example if "=" in word)
    assert (render(**answers) / "train.py").is_file()
