"""Refuse answers that cannot work, before any file is written.

All problems are reported at once, each with its value, the reason and what is allowed, and then one
command that repeats the answers with the fixes.

This file holds the rules of what goes together; `post_gen_project.py` holds the recipes of what to
write. The hardware rules are read from lightning 2.6.6 and torch 2.14; `tests/test_hardware_rules.py`
shows for each of them that Lightning or torch really rejects or changes what it refuses.

Python 3.8 can read this file, so that an old cookiecutter is told so in a sentence.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

OLDEST_COOKIECUTTER = (2, 7, 1)
TABLES = ("_modalities", "_data", "_systems", "_models", "_loggers")
BACKUP = ".cookiecutter-backup"  # post_gen_project.py restores it or removes it
OWNED = ("callbacks", "configs", "data", "engine", "launch", "models", "tests", ".github")

# --- The answers ------------------------------------------------------------------------------------

TEXTS = ("project_name", "project_slug", "description", "author")
CHOICES = {
    "license": ("MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"),
    "data": tuple(row["name"] for row in ANSWERS["_data"]),
    "model": ("auto", *(row["name"] for row in ANSWERS["_models"])),
    "accelerator": ("auto", "cpu", "gpu", "mps", "tpu"),
    "strategy": (
        "auto",
        "ddp",
        "ddp_spawn",
        "fsdp",
        "fsdp2",
        "deepspeed_stage_2",
        "deepspeed_stage_3",
        "deepspeed_stage_3_offload",
    ),
    "precision": (
        "auto",
        "32-true",
        "16-mixed",
        "bf16-mixed",
        "16-true",
        "bf16-true",
        "64-true",
    ),
    "logger": tuple(row["name"] for row in ANSWERS["_loggers"]),
    "extras": ("all", "core"),
}
PROMPTS = (
    *TEXTS, "license", "data", "model",
    "accelerator", "devices", "num_nodes", "strategy", "precision", "logger", "extras",
)  # fmt: skip
DEFAULTS = {
    "project_name": "My Lightning Project",
    "project_slug": "my-lightning-project",
    "author": "Your Name",
    "devices": "auto",
    "num_nodes": "1",
}

LONGEST_TEXT = 500  # characters; package indexes take a summary of 512
LONGEST_SLUG = 64
WINDOWS_NAMES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{number}" for port in ("com", "lpt") for number in range(10)
}
PROJECT_NAMES = {
    *("callbacks", "compare", "configs", "consolidate", "crossval", "data", "datasets", "engine"),
    *("export", "launch", "logs", "models", "predictor", "sweep", "tests", "train"),
}
STANDARD_LIBRARY = {"test"} | {name.lower() for name in getattr(sys, "stdlib_module_names", ())}


def index_name(requirement: str) -> str:
    """The distribution of a requirement, or a slug, as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


REQUIREMENTS = [
    *(package["requirement"] for package in ANSWERS["_packages"]),
    *(package for table in TABLES for row in ANSWERS[table] for package in row.get("packages", ())),
    "hatchling",
]
DEPENDENCY_NAMES = {index_name(requirement) for requirement in REQUIREMENTS}


class Problem(NamedTuple):
    prompt: str
    value: Any
    reason: str
    allowed: str
    fix: dict[str, str]
    other_fix: dict[str, str] | None = None  # another way, with the accelerator `auto`


# --- Single answers ---------------------------------------------------------------------------------


def unprintable(text: str) -> str:
    """The characters that break a line, a terminal or a file format."""
    return "".join(
        char
        for char in text
        if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or ord(char) & 0xFFFE == 0xFFFE
    )


def text_problem(prompt: str, text: str) -> Problem | None:
    """A name, description or author that cannot stand in README, pyproject.toml and licence."""
    bad = unprintable(text)
    clean = " ".join("".join(" " if char in bad else char for char in text).split())
    fix = {prompt: clean[:LONGEST_TEXT].strip() or DEFAULTS.get(prompt, "")}
    allowed = f"one line of at most {LONGEST_TEXT} characters"
    if bad:
        return Problem(prompt, text, f"it has control characters: {bad!a}", allowed, fix)
    if len(text) > LONGEST_TEXT:
        return Problem(prompt, text, f"it has {len(text)} characters", allowed, fix)
    if not clean and prompt != "description":
        return Problem(prompt, text, "it is empty", allowed, fix)
    return None


def slug_reason(slug: str) -> str | None:
    """Why a slug cannot be a folder and a distribution on Linux, macOS and Windows, if it cannot."""
    name = index_name(slug)
    if not slug:
        return "it is empty"
    if len(slug) > LONGEST_SLUG:
        return f"it has {len(slug)} characters"
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", slug):
        return "it cannot be the name of a folder and of a Python distribution"
    if slug.split(".")[0].lower() in WINDOWS_NAMES:
        return "Windows reserves the name"
    if name in PROJECT_NAMES:
        return "a module of the project has this name"
    if name in DEPENDENCY_NAMES:
        return "a package that the project needs has this name"
    if name.replace("-", "_") in STANDARD_LIBRARY:
        return "a module of Python's standard library has this name"
    return None


def slug_problem(slug: str) -> Problem | None:
    reason = slug_reason(slug)
    if reason is None:
        return None
    fix = re.sub(r"[^A-Za-z0-9._-]+", "-", slug).strip("._-")[:LONGEST_SLUG].strip("._-")
    if slug_reason(fix):
        fix = f"my-{fix}" if fix else DEFAULTS["project_slug"]
    allowed = (
        f"1 to {LONGEST_SLUG} ASCII letters, digits, '-', '_' or '.', the first and the last a letter"
        " or digit, and no name that Windows, Python or a dependency uses"
    )
    return Problem("project_slug", slug, reason, allowed, {"project_slug": fix})


def parse_devices(answer: str) -> str | int | list[int] | None:
    """'auto', a count, a list of indices, or None if it is none of these."""
    if answer == "auto":
        return answer
    if re.fullmatch(r"[1-9]\d{0,5}", answer, re.ASCII):
        return int(answer)
    if re.fullmatch(r"\[\s*\d{1,6}(\s*,\s*\d{1,6})*\s*\]", answer, re.ASCII):
        return [int(index) for index in re.findall(r"\d+", answer)]
    return None


def devices_problem(answer: str) -> Problem | None:
    devices = parse_devices(answer)
    if isinstance(devices, list):
        unique = list(dict.fromkeys(devices))
        if unique == devices:
            return None
        return Problem(
            "devices",
            answer,
            "an index is listed twice",
            "each index once",
            {"devices": str(unique)},
        )
    if devices is not None:
        return None
    numbers = re.findall(r"\d+", answer)
    guess = "auto"
    if len(numbers) == 1 and parse_devices(str(int(numbers[0]))) and "-" not in answer:
        guess = str(int(numbers[0]))
    elif len(numbers) > 1 and parse_devices(f"[{', '.join(numbers)}]"):
        guess = str(list(dict.fromkeys(map(int, numbers))))
    allowed = "auto (all), a count such as 2, or a list of indices such as [0, 1]"
    return Problem(
        "devices", answer, "it is not a valid choice of devices", allowed, {"devices": guess}
    )


def nodes_problem(answer: str) -> Problem | None:
    if re.fullmatch(r"[1-9]\d{0,5}", answer, re.ASCII):
        return None
    digits = re.sub(r"\D", "", answer.split(".")[0], flags=re.ASCII).lstrip("0")
    fix = digits if re.fullmatch(r"\s*0*[1-9]\d{0,5}(\.0+)?\s*", answer, re.ASCII) else "1"
    return Problem(
        "num_nodes",
        answer,
        "it is not a number of machines",
        "an integer from 1",
        {"num_nodes": fix},
    )


def choice_problem(prompt: str, answer: str) -> Problem | None:
    if answer in CHOICES[prompt]:
        return None
    import difflib  # not above: it takes time that most runs need not spend

    known = {choice.lower(): choice for choice in CHOICES[prompt]}
    near = difflib.get_close_matches(answer.strip().lower(), known, n=1)
    fix = known[near[0]] if near else CHOICES[prompt][0]
    reason = "it is not one of the choices"
    if answer.strip().lower() == "hpu":
        reason = "its Lightning plugin has not been kept up since 2024 and fails with lightning 2.6"
    return Problem(prompt, answer, reason, " | ".join(CHOICES[prompt]), {prompt: fix})


def answer_problem(prompt: str, answer: Any) -> Problem | None:
    """What is wrong with one answer taken alone."""
    if not isinstance(answer, str):
        known = isinstance(answer, (int, float)) and not isinstance(answer, bool)
        default = DEFAULTS.get(prompt) or CHOICES.get(prompt, ("",))[0]
        fix = str(answer) if known and not answer_problem(prompt, str(answer)) else default
        reason = "it is missing" if answer is None else "it is not a string"
        allowed = " | ".join(CHOICES[prompt]) if prompt in CHOICES else "a string"
        return Problem(prompt, answer, reason, allowed, {prompt: fix})
    if prompt == "project_slug":
        return slug_problem(answer)
    if prompt in TEXTS:
        return text_problem(prompt, answer)
    if prompt == "devices":
        return devices_problem(answer)
    if prompt == "num_nodes":
        return nodes_problem(answer)
    return choice_problem(prompt, answer)


# --- Hardware: what goes together -------------------------------------------------------------------
#
# `auto` means:
#   accelerator  what Lightning finds when it runs: a TPU, else a Mac's GPU, else CUDA, else the CPU.
#                So the other answers must work on each of these.
#   devices      all GPUs, all TPU cores, one CPU process, one Mac's GPU.
#   strategy     one process on one device, ddp on several, Lightning's own XLA strategy on a TPU.
#   precision    bf16-mixed on a GPU, 32-true elsewhere.

TPU_DEVICES = (1, 2, 4, 8)  # per host, of every TPU generation


class Hardware(NamedTuple):
    accelerator: str
    devices: str | int | list[int]
    num_nodes: int
    strategy: str
    precision: str
    model: str
    optimizers: int
    batch_norm: bool

    @property
    def family(self) -> str:
        return "deepspeed" if self.strategy.startswith("deepspeed") else self.strategy


def row(table: str, name: str) -> dict[str, Any]:
    """The row of an answer that is one of the choices."""
    return next(found for found in ANSWERS[table] if found["name"] == name)


def model_of(answers: dict[str, str]) -> dict[str, Any]:
    """The row of the model, as it is on this data; `auto` is the one that suits the data."""
    data, name = row("_data", answers["data"]), answers["model"]
    model = row("_models", data["model"] if name == "auto" else name)
    found = dict(model)
    for other in model.get("on", ()):
        if data["name"] in other.get("data", ()) or data["modality"] in other.get("modalities", ()):
            found.update(other)
    return {**found, "name": model["name"], "modalities": model["modalities"]}


def parse_hardware(answers: dict[str, str]) -> Hardware:
    model = model_of(answers)
    return Hardware(
        answers["accelerator"],
        parse_devices(answers["devices"]),
        int(answers["num_nodes"]),
        answers["strategy"],
        answers["precision"],
        model["name"],
        row("_systems", model["system"])["optimizers"],
        model["batch_norm"],
    )


def conflicts(hw: Hardware) -> dict[str, tuple[tuple[str, ...], str]]:
    """Rules that the hardware breaks: a rule's name -> the prompts that clash and the reason."""
    several = isinstance(hw.devices, int) and hw.devices > 1
    listed = isinstance(hw.devices, list)
    found: dict[str, tuple[tuple[str, ...], str]] = {}

    def refuse(rule: str, prompts: str, reason: str) -> None:
        found[rule] = (tuple(prompts.split()), reason)

    if hw.accelerator == "auto":
        if hw.strategy != "auto":
            refuse(
                "auto-strategy",
                "accelerator strategy",
                f"auto may find a TPU or a Mac's GPU, and Lightning refuses {hw.strategy} there;"
                " name the accelerator",
            )
        if several:
            refuse(
                "auto-devices",
                "accelerator devices",
                "auto may find a Mac, which has one GPU; name the accelerator",
            )
        if listed:
            refuse(
                "auto-list",
                "accelerator devices",
                "auto may find a CPU, which has no device indices; name the accelerator",
            )
        if hw.num_nodes > 1:
            refuse(
                "auto-nodes",
                "accelerator num_nodes",
                "auto may find a Mac's GPU or a TPU, which Lightning does not train on several machines"
                " in this way; name the accelerator",
            )
        if hw.precision in ("16-mixed", "bf16-mixed"):
            refuse(
                "auto-mixed",
                "accelerator precision",
                f"auto may find a TPU, for which Lightning has no {hw.precision}; name the accelerator",
            )
        if hw.precision == "16-true":
            refuse(
                "auto-16-true",
                "accelerator precision",
                "auto may find a TPU, where 16-true changes nothing; name the accelerator",
            )
        if hw.precision == "64-true":
            refuse(
                "auto-64",
                "accelerator precision",
                "auto may find a Mac's GPU or a TPU, which have no 64-true; name the accelerator",
            )
    if hw.accelerator == "cpu":
        if listed:
            refuse("cpu-list", "accelerator devices", "CPU processes have no indices, only a count")
        if hw.strategy == "fsdp":
            refuse(
                "cpu-fsdp", "accelerator strategy", "Lightning's fsdp needs a GPU; fsdp2 does not"
            )
        if hw.family == "deepspeed":
            refuse("cpu-deepspeed", "accelerator strategy", "Lightning's DeepSpeed needs a GPU")
        if hw.precision == "16-mixed":
            refuse(
                "cpu-16-mixed",
                "accelerator precision",
                "Lightning has no 16-mixed on a CPU and runs bf16-mixed instead",
            )
    if hw.accelerator == "mps":
        if hw.strategy != "auto":
            refuse(
                "mps-strategy",
                "accelerator strategy",
                f"a Mac's GPU trains alone: Lightning refuses {hw.strategy} on it",
            )
        if several or (listed and hw.devices != [0]):
            refuse("mps-devices", "accelerator devices", "a Mac has one GPU, with index 0")
        if hw.num_nodes > 1:
            refuse(
                "mps-nodes",
                "accelerator num_nodes",
                "several machines need ddp, and Lightning's works on CPUs and CUDA only",
            )
        if hw.precision == "64-true":
            refuse("mps-64", "accelerator precision", "a Mac's GPU has no float64")
    if hw.accelerator == "tpu":
        if hw.strategy != "auto":
            refuse(
                "tpu-strategy",
                "accelerator strategy",
                f"a TPU is trained with Lightning's XLA strategy, not {hw.strategy}; auto takes it",
            )
        if several and hw.devices not in TPU_DEVICES:
            refuse(
                "tpu-devices",
                "accelerator devices",
                "a TPU host has 1, 2, 4 or 8 devices, and Lightning takes one or all of them",
            )
        if listed and len(hw.devices) > 1:
            refuse("tpu-list", "accelerator devices", "Lightning takes one index on a TPU, no more")
        if hw.num_nodes > 1:
            refuse(
                "tpu-nodes",
                "accelerator num_nodes",
                "the hosts of a TPU pod find each other and Lightning ignores num_nodes; answer 1"
                " and start the same command on each host",
            )
        if hw.precision in ("16-mixed", "bf16-mixed", "64-true"):
            refuse(
                "tpu-precision",
                "accelerator precision",
                f"Lightning's XLA strategy has no {hw.precision}",
            )
        if hw.precision == "16-true":
            refuse(
                "tpu-16-true",
                "accelerator precision",
                "Lightning asks torch_xla for float16 in a way that torch_xla 2.9 ignores: it would"
                " train in float32",
            )
    if hw.strategy == "fsdp":
        if hw.precision == "64-true":
            refuse("fsdp-64", "strategy precision", "Lightning's fsdp has no 64-true")
        if hw.batch_norm and hw.precision in ("16-true", "bf16-true"):
            refuse(
                "fsdp-batch-norm",
                "strategy precision model",
                f"torch's fsdp gives batch norm, which the {hw.model} has, float32 inputs and in"
                f" {hw.precision} leaves its weights as they are: it fails in the first step",
            )
        if hw.optimizers > 1:
            refuse(
                "fsdp-gan",
                "strategy model",
                f"fsdp takes one backward pass per step, and the {hw.model} has {hw.optimizers};"
                " fsdp2 takes them",
            )
    if hw.strategy == "fsdp2" and hw.precision in ("16-mixed", "64-true"):
        refuse("fsdp2-precision", "strategy precision", f"Lightning's fsdp2 has no {hw.precision}")
    if hw.family == "deepspeed":
        if hw.precision == "64-true":
            refuse("deepspeed-64", "strategy precision", "DeepSpeed has no 64-true")
        if listed and hw.devices != list(range(len(hw.devices))):
            refuse(
                "deepspeed-list",
                "strategy devices",
                "DeepSpeed counts devices from 0; give a count and choose with CUDA_VISIBLE_DEVICES",
            )
        if hw.optimizers > 1:
            refuse(
                "deepspeed-gan",
                "strategy model",
                f"DeepSpeed takes one optimizer, and the {hw.model} has {hw.optimizers}",
            )
    if hw.strategy == "ddp_spawn" and hw.num_nodes > 1:
        refuse(
            "ddp_spawn-nodes",
            "strategy num_nodes",
            "SLURM and torchrun start every process on every machine, and ddp_spawn would start all of"
            " them again in each; ddp does not",
        )
    return found


NEAREST = {
    "64-true": "32-true",
    "16-true": "bf16-true",
    "16-mixed": "bf16-mixed",
    "ddp_spawn": "ddp",
}


def nearest(answers: dict[str, str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The smallest changes of the hardware answers that make them work, the likeliest first: those
    that name an accelerator where none was (`auto`), and those that leave it as it is."""
    if "[" in answers["devices"]:
        count = len(re.findall(r"\d+", answers["devices"]))
        devices = (str(count), str(list(range(count))), "auto", "1")
    else:
        devices = ("auto", "1", "[0]")
    candidates = {
        "precision": (NEAREST.get(answers["precision"], "32-true"), "32-true", "auto"),
        "devices": devices,
        "strategy": (NEAREST.get(answers["strategy"], "fsdp2"), "ddp", "fsdp", "auto"),
        "num_nodes": ("1",),
    }
    named = [
        {**change, "accelerator": accelerator}
        for accelerator in ("gpu", "cpu", "mps", "tpu")
        for change in smallest({**answers, "accelerator": accelerator}, candidates)
        if answers["accelerator"] == "auto"
    ]
    size = min(map(len, named), default=0)
    kept = smallest(answers, candidates)
    return [change for change in named if len(change) == size], kept


def smallest(
    answers: dict[str, str], candidates: dict[str, tuple[str, ...]]
) -> list[dict[str, str]]:
    """The changes to candidates, of as few prompts as it takes, with which the answers work."""
    for size in range(len(candidates) + 1):
        found = []
        for prompts in itertools.combinations(candidates, size):
            for values in itertools.product(*(dict.fromkeys(candidates[p]) for p in prompts)):
                change = dict(zip(prompts, values))
                if any(answers[prompt] == value for prompt, value in change.items()):
                    continue
                if not conflicts(parse_hardware({**answers, **change})):
                    found.append(change)
        if found:
            return found
    raise AssertionError(f"no hardware works for {answers}")


def ways(changes: list[dict[str, str]]) -> str:
    """Changes in words, two at most; the values of the last prompt stand together."""
    found: dict[str, list[str]] = {}
    for change in changes:
        *others, last = [f"{prompt}={shlex.quote(value)}" for prompt, value in change.items()]
        key, _, value = last.partition("=")
        found.setdefault(" ".join([*others, f"{key}="]), []).append(value)
    return " or ".join([key + "|".join(values) for key, values in found.items()][:2])


def hardware_problems(answers: dict[str, str], wrong: set[str]) -> list[Problem]:
    """The rules that allowed answers break together; rules about `wrong` ones do not count yet."""
    named, kept = nearest(answers)
    allowed = " or ".join(filter(None, (ways(named), ways(kept))))
    fix = (named or kept)[0]
    other_fix = kept[0] if named else None
    return [
        Problem(
            " with ".join(prompts), [answers[p] for p in prompts], reason, allowed, fix, other_fix
        )
        for prompts, reason in conflicts(parse_hardware(answers)).values()
        if not wrong & set(prompts)
    ]


def data_problem(answers: dict[str, str]) -> Problem | None:
    """A model that takes no data of this modality."""
    model, data = model_of(answers), row("_data", answers["data"])
    if data["modality"] in model["modalities"]:
        return None
    fitting = [found for found in ANSWERS["_models"] if data["modality"] in found["modalities"]]
    allowed = " | ".join(["auto", *(found["name"] for found in fitting)])
    return Problem(
        "data with model",
        [answers["data"], answers["model"]],
        f"{model['name']} takes {' or '.join(model['modalities'])}, and this is {data['modality']}",
        f"model={allowed}",
        {"model": "auto"},
    )


# --- All of it --------------------------------------------------------------------------------------


def problems(answers: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with the answers; empty if they can work."""
    found = [answer_problem(prompt, answers.get(prompt)) for prompt in PROMPTS]
    found = [problem for problem in found if problem]
    mended = dict(answers)
    for problem in found:
        mended.update(problem.fix)
    clash = data_problem(mended)
    if clash:
        found.append(clash)
        mended.update(clash.fix)
    if conflicts(parse_hardware(mended)):
        found += hardware_problems(mended, {problem.prompt for problem in found})
    return found


def fixed(answers: dict[str, Any], keep_auto: bool = False) -> dict[str, str]:
    """The answers with every suggested fix applied: they pass the rules."""
    answers = {prompt: answers.get(prompt) for prompt in PROMPTS}
    found = problems(answers)
    while found:
        for problem in found:
            answers.update(keep_auto and problem.other_fix or problem.fix)
        found = problems(answers)
    return answers


def quoted(words: list[str]) -> str:
    """A command line for the user's shell."""
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(words)
    return " ".join(map(shlex.quote, words))


def command(answers: dict[str, Any], overwrite: bool = False, keep_auto: bool = False) -> str:
    """The cookiecutter command that gives these answers, with the fixes, to this template."""
    mended = fixed(answers, keep_auto)
    if "_commit" in answers:  # of cruft: only its own projects can follow the template
        words = ["cruft", "create", "--no-input", "--extra-context", json.dumps(mended)]
        return quoted([*words, str(answers["_template"])])
    words = ["cookiecutter", "--no-input"]
    output = answers.get("_output_dir")
    if output and output != os.environ.get("PWD"):
        words += ["--output-dir", output]
    if answers.get("_checkout"):
        words += ["--checkout", answers["_checkout"]]
    if overwrite:
        words += ["--overwrite-if-exists"]
    words.append(str(answers.get("_template", "cookiecutter-lightning")))
    for prompt, value in mended.items():
        if re.search("[{][%#{]", value):  # cookiecutter would render it
            value = "{" + "% raw %" + "}" + value + "{" + "% endraw %" + "}"
        words.append(f"{prompt}={value}")
    return quoted(words)


def report(answers: dict[str, Any], found: list[Problem], overwrite: bool = False) -> str:
    """What the user reads."""
    lines = ["", "These answers cannot work; nothing was written.", ""]
    for problem in found:
        values = problem.value if isinstance(problem.value, list) else [problem.value]
        shown = " with ".join(
            f"{prompt}={value!r}" for prompt, value in zip(problem.prompt.split(" with "), values)
        )
        lines += [
            f"  {shown}",
            f"    why:     {problem.reason}",
            f"    allowed: {problem.allowed}",
            "",
        ]
    told = {prompt for problem in found for prompt in problem.fix}
    for prompt, value in fixed(answers).items():
        if value != answers.get(prompt) and prompt not in told:
            lines += [
                f"  {prompt}={value} below, since {answers.get(prompt)} cannot go with the rest",
                "",
            ]
    lines += ["This command works:", "", command(answers, overwrite), ""]
    if fixed(answers, keep_auto=True) != fixed(answers):
        lines += ["So does this one, on one device of any kind:", ""]
        lines += [command(answers, overwrite, keep_auto=True), ""]
    return "\n".join(lines)


def stale_tables(answers: dict[str, Any]) -> list[str]:
    """The tables that a replay file has kept from another version of the template."""
    # As seen from where cookiecutter was started. Not found (on Windows, say): nothing to compare.
    template = Path(os.environ.get("PWD", "."), str(answers.get("_repo_dir")), "cookiecutter.json")
    if not template.is_file():
        return []
    tables = json.loads(template.read_text(encoding="utf-8"))
    return [name for name in (*TABLES, "_packages") if tables.get(name) != answers.get(name)]


def cookiecutter_version() -> str | None:
    """From the name of its metadata folder, as importlib.metadata has it, which takes 0.1 s to import.

    (`cookiecutter.__version__` is wrong in 2.7.0.)
    """
    for folder in sys.path[1:]:  # the first is the hook's own
        for path in Path(folder).glob("cookiecutter-*-info"):
            found = re.fullmatch(r"cookiecutter-([^-]+?)(-py[\d.]+)?\.(dist|egg)-info", path.name)
            if found:
                return found[1]
    return None


def cookiecutter_problem(version: str | None) -> str | None:
    """A sentence if cookiecutter is too old."""
    if version is None:
        return None
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers >= OLDEST_COOKIECUTTER:
        return None
    oldest = ".".join(map(str, OLDEST_COOKIECUTTER))
    return (
        f"This template needs cookiecutter {oldest} or newer, and this is {version}; nothing was"
        f" written. Update it with: python -m pip install --upgrade 'cookiecutter>={oldest}'"
    )


# --- Folders ----------------------------------------------------------------------------------------


def remove_strays(project: Path, output: Path, slug: str) -> None:
    """Remove the empty folders that cookiecutter makes for a slug with path separators.

    cookiecutter removes only the innermost one.
    """
    parts = [part for part in re.split(r"[/\\]" if os.name == "nt" else "/", slug) if part]
    if len(parts) < 2 or any(project.iterdir()):
        return
    os.chdir(output)  # Windows removes no folder that a process is in
    for path in [Path(output, slug), *Path(output, slug).parents][: len(parts)]:
        if path.is_dir() and not any(path.iterdir()):
            path.resolve().rmdir()


def back_up(project: Path) -> None:
    """Keep what the template may overwrite, if a project is there already (`cookiecutter -f`).

    post_gen_project.py puts it back if it fails.
    """
    backup = project / BACKUP
    backup.mkdir()
    before = [path for path in project.iterdir() if path.is_file()]
    for folder in OWNED:
        before += [path for path in (project / folder).rglob("*") if path.is_file()]
    names = [path.relative_to(project).as_posix() for path in before]
    (backup / "files").mkdir()
    (backup / "files.json").write_text(json.dumps(names), encoding="utf-8")
    for path, name in zip(before, names):
        if path.stat().st_size < 1_000_000:  # the template has no larger files
            copy = backup / "files" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def main() -> None:
    project = Path.cwd()
    overwrite = any(project.iterdir())
    old = cookiecutter_problem(cookiecutter_version())
    if old:
        sys.exit(old)
    stale = stale_tables(ANSWERS)
    if stale:
        sys.exit(
            f"These answers come with {', '.join(stale)} of another version of the template, as a"
            " replay file keeps them. Nothing was written. The same answers with this version:"
            f"\n\n{command(ANSWERS, overwrite)}\n"
        )
    found = problems(ANSWERS)
    if found:
        message = report(ANSWERS, found, overwrite)
        slug = ANSWERS.get("project_slug")
        if isinstance(slug, str) and "_output_dir" in ANSWERS:
            remove_strays(project, Path(ANSWERS["_output_dir"]), slug)
        sys.exit(message)
    if (project / BACKUP).exists():
        sys.exit(
            f"{project / BACKUP} holds files that an interrupted run saved: move what you need out of"
            " it, remove it, and run cookiecutter again. Nothing was written."
        )
    if overwrite:
        back_up(project)


if __name__ == "__main__":
    main()
