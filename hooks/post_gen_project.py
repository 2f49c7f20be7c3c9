"""Make the rendered files the project of the answers.

Keeps the files that the answers need, writes the hardware into `configs/trainer.yaml` and the
dependencies into `pyproject.toml`, and prints what to do next. `pre_gen_project.py` has refused what
cannot work, so this file holds recipes and no rules. What a data set, a model or a logger means stands
in the tables of `cookiecutter.json`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

BACKUP = ".cookiecutter-backup"  # from pre_gen_project.py, if a project was there (`-f`)
OWNED = ("callbacks", "configs", "data", "engine", "launch", "models", "tests", ".github")
CACHES = ("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache")  # of a template in work

# --- The tables of cookiecutter.json ----------------------------------------------------------------


def row(table: str, name: str) -> dict[str, Any]:
    for found in ANSWERS[table]:
        if found["name"] == name:
            return found
    raise ValueError(f"cookiecutter.json has no row {name} in {table}")


def meaning(answers: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The rows of the answers, by table; `templates/answers.jinja` has the same."""
    data = row("_data", answers["data"])
    model = row("_models", data["model"] if answers["model"] == "auto" else answers["model"])
    for other in model.get("on", ()):
        if data["name"] in other.get("data", ()) or data["modality"] in other.get("modalities", ()):
            model = {**model, **other}
    return {
        "_data": data,
        "_modalities": row("_modalities", data["modality"]),
        "_models": model,
        "_systems": row("_systems", model["system"]),
        "_loggers": row("_loggers", answers["logger"]),
    }


# The files of a row, beside those that its key `files` has.
FILES_OF_ROWS = {
    "_data": ("data/{}.py", "tests/small_data/{}.py"),
    "_modalities": (),
    "_models": ("models/networks/{}.py",),
    "_systems": ("models/{}.py",),
    "_loggers": (),
}


def files_of(table: str, found: dict[str, Any]) -> list[str]:
    """The files that only projects with this row have."""
    named = [name.format(found["name"]) for name in FILES_OF_ROWS[table]]
    return [*named, *found.get("files", ())]


# --- Files ------------------------------------------------------------------------------------------

ALL = {"extras": ("all",)}
ONE_OPTIMIZER = {"optimizers": ("1",)}  # what Lightning steps by itself
WHOLE = {"strategy": ("auto", "ddp", "ddp_spawn")}  # strategies with all weights on each device
FSDP2 = {"strategy": ("fsdp2",)}
# What else a file or folder needs; what stands neither here nor in a row is in every project.
FILES = {
    "callbacks/confusion_matrix.py": ALL,
    "callbacks/norms.py": ALL,
    "callbacks/table_charts.py": ALL,
    "engine/tune.py": ALL,
    "configs/callbacks": ALL,
    "configs/callbacks/backbone_finetuning.yaml": {**ALL, **WHOLE},
    "configs/callbacks/ema.yaml": {**ALL, **WHOLE},
    "configs/callbacks/gradient_accumulation.yaml": {**ALL, **ONE_OPTIMIZER},
    "configs/callbacks/pruning.yaml": {**ALL, **WHOLE},
    "configs/callbacks/table_charts.yaml": ALL,
    "configs/callbacks/swa.yaml": {**ALL, **WHOLE, **ONE_OPTIMIZER},
    "configs/experiment": ALL,
    "configs/sweep": ALL,
    "configs/tune": ALL,
    "configs/tune/lr.yaml": {**ALL, **ONE_OPTIMIZER},
    "compare.py": ALL,
    "consolidate.py": FSDP2,
    "crossval.py": ALL,
    "export.py": ALL,
    "predictor.py": ALL,
    "sweep.py": ALL,
    "engine/charts.py": ALL,
    "engine/compare.py": ALL,
    "engine/consolidate.py": FSDP2,
    "engine/crossval.py": ALL,
    "engine/export.py": ALL,
    "engine/finetuning.py": {**ALL, **WHOLE},
    "engine/fsdp2.py": FSDP2,
    "engine/lightning_callbacks.py": {**ALL, **WHOLE},
    "engine/options.py": ALL,
    "engine/predictor.py": ALL,
    "engine/program.py": ALL,
    "engine/sweep.py": ALL,
    "engine/trials.py": ALL,
    "launch": {"machines": ("several",)},
}


def needed(needs: dict[str, tuple[str, ...]], answers: dict[str, str]) -> bool:
    """Whether the answers are among those that a file or a package needs."""
    rows = meaning(answers)
    facts = {
        **answers,
        "machines": "one" if answers["num_nodes"] == "1" else "several",
        "model": rows["_models"]["name"],
        "optimizers": str(rows["_systems"]["optimizers"]),
        "system": rows["_systems"]["name"],
    }
    return all(facts[prompt] in values for prompt, values in needs.items())


def unneeded_files(answers: dict[str, str]) -> set[str]:
    """The files and folders of the template that do not belong to these answers."""
    rows = meaning(answers)
    chosen = {name for table in rows for name in files_of(table, rows[table])}
    named = {
        name
        for table in rows
        for found in ANSWERS[table]
        for variant in [found, *({**found, **other} for other in found.get("on", ()))]
        for name in files_of(table, variant)
    }
    return (named - chosen) | {name for name in FILES if not needed(FILES[name], answers)}


# --- Dependencies -----------------------------------------------------------------------------------

# torch_xla is built for one version of torch, and this is its newest.
ON_TPU = {"torch": "torch==2.9.*", "torchvision": "torchvision==0.24.*"}


def dependencies(answers: dict[str, str]) -> list[str]:
    """The requirements of a project, sorted."""
    found = {
        package["requirement"]
        for package in ANSWERS["_packages"]
        if "group" not in package and needed(package.get("needs", {}), answers)
    }
    for chosen in meaning(answers).values():
        found.update(chosen.get("packages", ()))
    if answers["accelerator"] == "tpu":
        found = {ON_TPU.get(requirement.split(">=")[0], requirement) for requirement in found}
    return sorted(found)


# --- Hardware ---------------------------------------------------------------------------------------

# pre_gen_project.py says what `auto` means.
BEST_PRECISION = {"gpu": "bf16-mixed"}  # 32-true elsewhere

STRATEGIES = {
    "auto": """\
  # auto: one process on one device, ddp on several.
  strategy: auto
""",
    "xla": """\
  # auto: on a TPU this is Lightning's XLA strategy.
  strategy: auto
""",
    "ddp": """\
  # Each device has a copy of the model and a share of the batches; gradients are averaged.
  strategy: ddp
""",
    "ddp_spawn": """\
  # ddp in processes that are started as functions, so train.py itself is run once only.
  strategy: ddp_spawn
""",
    "fsdp": """\
  # Weights, gradients and optimizer states are sharded over the GPUs (PyTorch's first FSDP).
  # fsdp has no gradient_clip_val by norm: use gradient_clip_algorithm: value.
  strategy:
    class_path: lightning.pytorch.strategies.FSDPStrategy
    init_args:
      sharding_strategy: FULL_SHARD  # SHARD_GRAD_OP: faster, more memory
      state_dict_type: full  # checkpoints are plain files; sharded: folders, for large models
      cpu_offload: false
      # Each of these blocks is gathered, used and freed on its own.
      auto_wrap_policy:
        class_path: torch.distributed.fsdp.wrap.ModuleWrapPolicy
        init_args:
          module_classes:{blocks}
""",
    "fsdp2": """\
  # Weights, gradients and optimizer states are sharded over the devices (PyTorch's current FSDP);
  # engine/fsdp2.py says how. Checkpoints are folders: consolidate.py makes plain files of them.
  strategy:
    class_path: engine.fsdp2.FSDP2
  inference_mode: false  # but no_grad: FSDP2 gathers no weights in torch.inference_mode on a GPU
""",
    "deepspeed_stage_2": """\
  # DeepSpeed ZeRO 2: optimizer states and gradients are sharded over the GPUs. Checkpoints are
  # folders; python CHECKPOINT/zero_to_fp32.py CHECKPOINT OUTPUT gives the plain weights.
  strategy: deepspeed_stage_2
""",
    "deepspeed_stage_3": """\
  # DeepSpeed ZeRO 3: weights, optimizer states and gradients are sharded over the GPUs. Checkpoints
  # are folders; python CHECKPOINT/zero_to_fp32.py CHECKPOINT OUTPUT gives the plain weights.
  strategy: deepspeed_stage_3
""",
    "deepspeed_stage_3_offload": """\
  # DeepSpeed ZeRO 3: weights, optimizer states and gradients are sharded over the GPUs and wait in
  # the machine's memory. Checkpoints are folders; python CHECKPOINT/zero_to_fp32.py CHECKPOINT
  # OUTPUT gives the plain weights.
  strategy:
    class_path: lightning.pytorch.strategies.DeepSpeedStrategy
    init_args:
      config:
        zero_allow_untested_optimizer: true
        # DeepSpeed steps on the CPU, and by default takes no optimizer but its own for that. It is
        # faster and needs a CUDA compiler: --model.optimizer deepspeed.ops.adam.DeepSpeedCPUAdam
        zero_force_ds_cpu_optimizer: false
        zero_optimization:
          stage: 3
          offload_optimizer: {device: cpu}
          offload_param: {device: cpu}
""",
}
ACCELERATORS = {
    "auto": "the best the machine has: TPU, Mac GPU, CUDA GPU, CPU, in this order",
    "cpu": "works everywhere",
    "gpu": "NVIDIA (CUDA) or AMD (ROCm)",
    "mps": "the GPU of an Apple silicon Mac",
    "tpu": "Google Cloud",
}
DEVICES = {
    "auto": "auto: all that the machine has",
    "cpu": "processes on each machine; auto: one",
    "gpu": "on each machine: auto (all), a count, or a list of indices",
    "mps": "a Mac has one",
    "tpu": "of this host: auto (all), a count, or a list of one index",
}
PRECISIONS = {
    "32-true": "float32 throughout",
    "16-mixed": "float16 where it is safe, with a loss scaler",
    "bf16-mixed": "bfloat16 where it is safe{since}",
    "16-true": "the network in float16",
    "bf16-true": "the network in bfloat16",
    "64-true": "float64 throughout",
}


def may_be_several(answers: dict[str, str]) -> bool:
    """Whether more than one process may train."""
    if int(answers["num_nodes"]) > 1:
        return True
    if answers["devices"] == "auto":
        return answers["accelerator"] not in ("cpu", "mps")
    devices = json.loads(answers["devices"])
    return (len(devices) if isinstance(devices, list) else devices) > 1


def trainer_yaml(answers: dict[str, str]) -> str:
    """`configs/trainer.yaml`: the arguments of Lightning's Trainer that the hardware needs."""
    accelerator, devices, strategy = (answers[k] for k in ("accelerator", "devices", "strategy"))
    model, precision = meaning(answers)["_models"], answers["precision"]
    several = may_be_several(answers)

    if precision == "auto":
        precision = BEST_PRECISION.get(accelerator, "32-true")
    older = "32-true" if strategy == "fsdp2" else "16-mixed"
    since = f"; for GPUs since 2020 (before: {older})" if accelerator == "gpu" else ""

    recipe = "xla" if accelerator == "tpu" else strategy
    blocks = model.get("fsdp_blocks", ["torch.nn.Sequential"])
    strategy_lines = STRATEGIES[recipe].replace(
        "{blocks}", "".join(f"\n            - {block}" for block in blocks)
    )

    lines = f"""\
# The hardware: arguments of Lightning's Trainer. For a single run give them on the command line:
# python train.py --trainer.devices 2
trainer:
  accelerator: {accelerator}  # {ACCELERATORS[accelerator]}
  devices: {devices}  # {DEVICES[accelerator]}
  num_nodes: {answers["num_nodes"]}  # machines
  precision: {precision}  # {PRECISIONS[precision].replace("{since}", since)}
{strategy_lines}"""
    syncs = accelerator == "gpu" and strategy in ("auto", "ddp", "ddp_spawn", "fsdp") and several
    if syncs and model["batch_norm"]:
        lines += """\
  # Batch norm takes its statistics over the batches of all GPUs. Works on GPUs only.
  sync_batchnorm: true
"""
    if accelerator == "gpu":
        lines += """\

# float32 products on tensor cores: highest (float32), high (TensorFloat32) or medium (bfloat16).
float32_matmul_precision: high
"""
    if precision == "16-true":
        lines += """\

# The optimizer's usual eps of 1e-8 is 0 in float16, and it would divide by it.
model:
  init_args:
    optimizer:
      init_args:
        eps: 1.0e-4
"""
    return lines


# --- What the hook does -----------------------------------------------------------------------------


def remove(project: Path, path: Path) -> None:
    """Remove a rendered file or folder; what the user had in its place comes back (`-f`)."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        before = project / BACKUP / "files" / file.relative_to(project)
        if before.is_file():
            shutil.copy2(before, file)
        else:
            file.unlink()
    folders = [path, *path.rglob("*")] if path.is_dir() else []
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def keep_chosen_files(project: Path, answers: dict[str, str]) -> None:
    rows = meaning(answers)
    for name in (name for table in rows for name in files_of(table, rows[table])):
        if not (project / name).exists():
            raise FileNotFoundError(f"the template has no {name}, which the answers need")
    for name in sorted(unneeded_files(answers)):
        remove(project, project / name)
    for cache in CACHES:
        for path in [*project.glob(f"{cache}"), *(project / "tests").glob(cache)]:
            shutil.rmtree(path)
        for folder in OWNED:
            for path in (project / folder).rglob(cache):
                shutil.rmtree(path)


def write_hardware_and_dependencies(project: Path, answers: dict[str, str]) -> None:
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    empty = "dependencies = []\n"
    if text.count(empty) != 1:
        before = project / BACKUP / "files" / "pyproject.toml"
        if before.is_file() and before.read_text(encoding="utf-8") == text:
            return  # `cookiecutter -f -s`: the files that were there stay as they were
        raise ValueError(f"the template's pyproject.toml has no line {empty.strip()!r}")
    packages = "".join(f'    "{package}",\n' for package in dependencies(answers))
    write(pyproject, text.replace(empty, f"dependencies = [\n{packages}]\n"))
    write(project / "configs" / "trainer.yaml", trainer_yaml(answers))


def write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)


def restore(project: Path) -> None:
    """Put back what was there before cookiecutter wrote (`-f`) and remove what it has written."""
    backup = project / BACKUP
    if not backup.is_dir():
        return  # a new project: cookiecutter removes it
    before = {project / name for name in json.loads((backup / "files.json").read_text("utf-8"))}
    now = [path for path in project.iterdir() if path.is_file()]
    for folder in OWNED:
        now += [path for path in (project / folder).rglob("*") if path.is_file()]
    for path in now:
        if path not in before:
            path.unlink()
    shutil.copytree(backup / "files", project, dirs_exist_ok=True)
    for folder in OWNED:
        for path in sorted((project / folder, *(project / folder).rglob("*")), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    shutil.rmtree(backup)


def main() -> None:
    project = Path.cwd()
    try:
        keep_chosen_files(project, ANSWERS)
        write_hardware_and_dependencies(project, ANSWERS)
        if (project / BACKUP).is_dir():
            shutil.rmtree(project / BACKUP)
    except BaseException as error:  # noqa: BLE001  Ctrl-C leaves no half project either
        restore(project)
        reason = str(error) or type(error).__name__
        sys.exit(f"The project could not be made: {reason}. Nothing was written.")
    folder = project.name
    if "_output_dir" in ANSWERS and "PWD" in os.environ:  # not under cruft, not in Windows' shells
        folder = shlex.quote(os.path.relpath(project, os.environ["PWD"]))
    commands = [
        f"cd {folder}",
        "python -m pip install -e .",
        *meaning(ANSWERS)["_data"].get("first", ()),
    ]
    commands.append("python train.py")
    if ANSWERS["num_nodes"] != "1":
        commands[-1] += " --trainer.num_nodes 1   # on this machine alone; for several see launch/"
    print(f"\n{project.name} is ready. Next:\n")
    print(*(f"  {command}" for command in commands), "", sep="\n")


if __name__ == "__main__":
    main()
