"""The whole space of hardware answers against Lightning, torch and simulated machines.

What the rules take is built: a real Trainer from the `trainer.yaml` of these answers. What they refuse
is shown to be rejected or changed by Lightning or torch: the very combination where a Trainer already
refuses it, one of its family where that shows only later.
"""

import copy
import functools
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import pytest
import torch
import yaml
from lightning.fabric.accelerators import cuda as fabric_cuda
from lightning.fabric.accelerators import mps as fabric_mps
from lightning.fabric.accelerators.xla import XLAAccelerator
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.accelerators import cuda as pytorch_cuda
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.plugins.precision.xla import XLAPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.strategies.launchers import multiprocessing
from projects import inside, small_data
from templates import CHOICES, DATA, DEFAULTS, NETWORKS, ROOT, SYSTEMS, row_of
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

PROJECT = ROOT / "{{cookiecutter.project_slug}}"
DEVICES = ("auto", "1", "2", "8", "[0]", "[0, 1]", "[1, 3]")
NODES = ("1", "2")
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision")
# The machines on which an accelerator's answers have to work.
MACHINES = {
    "auto": ("tpu", "mps", "cuda", "cpu"),
    "cpu": ("cpu",),
    "gpu": ("cuda",),
    "mps": ("mps",),
    "tpu": ("tpu",),
}
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(scope="module")
def rules(hook):
    return hook("pre_gen_project")


@pytest.fixture(scope="module")
def recipes(hook):
    return hook("post_gen_project")


@pytest.fixture(scope="module", autouse=True)
def project_sources():
    """The project's modules, as they lie in the template."""
    with inside(PROJECT):
        yield


CELLS = [cells[0] for cells in NETWORKS.values()]  # of each network
# One of those for each way in which they differ for the hardware.
KINDS = list(
    {
        (row["batch_norm"], SYSTEMS[row["system"]]["optimizers"], *row.get("fsdp_blocks", ())): cell
        for cell, row in ((cell, row_of(*cell)) for cell in reversed(CELLS))
    }.values()
)


def cells(chosen: list[tuple[str, str]]) -> list:
    return [pytest.param(*cell, id="-".join(cell)) for cell in chosen]


def combinations(models=(("digits", "cnn"), ("digits", "gan"))):
    for *values, (data, model) in itertools.product(
        CHOICES["accelerator"], DEVICES, NODES, CHOICES["strategy"], CHOICES["precision"], models
    ):
        hardware = dict(zip(HARDWARE, values, strict=True))
        yield {**DEFAULTS, **hardware, "data": data, "model": model}


def broken_rules(rules, answers):
    return set(rules.conflicts(rules.parse_hardware(answers)))


def simulate(patch: pytest.MonkeyPatch, machine: str) -> None:
    """Make Lightning see this machine: 8 CUDA GPUs, a Mac's GPU, 8 TPU devices, or only a CPU.

    As Lightning's own tests do it. The packages of DeepSpeed and of TPUs are stand-ins.
    """
    gpus = 8 if machine == "cuda" else 0
    patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    patch.setattr(torch.cuda, "device_count", lambda: gpus)
    for module in (fabric_cuda, pytorch_cuda):
        patch.setattr(module, "num_cuda_devices", lambda: gpus)
    indices = [0] if machine == "mps" else []
    patch.setattr(fabric_mps, "_get_all_available_mps_gpus", lambda: indices)
    patch.setattr(fabric_mps.MPSAccelerator, "is_available", staticmethod(lambda: machine == "mps"))
    tpu_of(8 if machine == "tpu" else 0, patch)
    xla = MagicMock()
    xla.core.xla_model.xla_device = lambda index=0: torch.device("xla", index)
    packages = {"torch_xla": xla, "torch_xla.core": xla.core, "deepspeed": MagicMock()}
    for name, package in {**packages, "torch_xla.core.xla_model": xla.core.xla_model}.items():
        patch.setitem(sys.modules, name, package)
    for name, module in [*sys.modules.items()]:
        if name.startswith("lightning."):
            for flag in ("_XLA_AVAILABLE", "_DEEPSPEED_AVAILABLE", "_DEEPSPEED_GREATER_EQUAL_0_16"):
                if hasattr(module, flag):
                    patch.setattr(module, flag, True)
    patch.setattr("lightning.fabric.accelerators.xla._using_pjrt", lambda: True)


def tpu_of(cores: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(XLAAccelerator, "auto_device_count", staticmethod(lambda: cores))
    patch.setattr(XLAAccelerator, "is_available", staticmethod(lambda: cores > 0))


# --- What the rules take --------------------------------------------------------------------------


@functools.cache
def parser() -> LightningArgumentParser:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(Trainer, "trainer")
    return parser


@functools.cache
def parsed_strategy(text: str):
    """A strategy from its YAML, by the parser that the project's command line has."""
    config = parser().parse_object({"trainer": {"strategy": yaml.safe_load(text)}})
    return parser().instantiate_classes(config).trainer.strategy


def build(trainer_yaml: str) -> Trainer:
    settings = yaml.safe_load(trainer_yaml)["trainer"]
    strategy = yaml.safe_dump(settings.pop("strategy"))
    return Trainer(strategy=copy.deepcopy(parsed_strategy(strategy)), **settings, **QUIET)


def expectation(answers: dict[str, str], machine: str) -> dict:
    """What the Trainer of these answers is on this machine, told without the recipes."""
    devices, strategy = answers["devices"], answers["strategy"]
    count = {"cuda": 8, "tpu": 8}.get(machine, 1) if devices == "auto" else None
    if count is None:
        count = len(devices.split(",")) if devices[0] == "[" else int(devices)
    nodes = int(answers["num_nodes"])
    precision = answers["precision"]
    if precision == "auto":
        precision = "bf16-mixed" if answers["accelerator"] == "gpu" else "32-true"
    if machine == "tpu":
        kind = "SingleDeviceXLAStrategy" if count == 1 else "XLAStrategy"
    elif strategy == "auto":
        kind = "DDPStrategy" if count * nodes > 1 else "SingleDeviceStrategy"
    elif strategy.startswith("deepspeed"):
        kind = "DeepSpeedStrategy"
    else:
        kinds = {"ddp": "DDPStrategy", "ddp_spawn": "DDPStrategy", "fsdp": "FSDPStrategy"}
        kind = kinds.get(strategy, "FSDP2")
    plugin = {
        "32-true": "Precision",
        "64-true": "DoublePrecision",
        "16-true": "HalfPrecision",
        "bf16-true": "HalfPrecision",
    }.get(precision, "MixedPrecision")
    if machine == "tpu":
        plugin = "XLAPrecision"
    if kind in ("FSDPStrategy", "DeepSpeedStrategy"):
        plugin = kind.replace("Strategy", "Precision")
    return {
        "accelerator": {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "tpu": "XLA"}[machine],
        "devices": count,
        "nodes": nodes,
        "strategy": kind,
        "plugin": plugin,
        "precision": precision,
        "start": ("spawn" if strategy == "ddp_spawn" else "popen")
        if kind == "DDPStrategy"
        else None,
    }


def description(trainer: Trainer) -> dict:
    strategy = trainer.strategy
    ddp = type(strategy) is DDPStrategy
    return {
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator"),
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "strategy": type(strategy).__name__,
        "plugin": type(trainer.precision_plugin).__name__,
        "precision": trainer.precision_plugin.precision,
        "start": strategy._start_method if ddp else None,
    }


@pytest.mark.parametrize("accelerator", CHOICES["accelerator"])
def test_what_is_taken_builds_the_right_trainer(rules, recipes, accelerator, monkeypatch):
    built = Counter()
    for machine in MACHINES[accelerator]:
        with monkeypatch.context() as patch:
            simulate(patch, machine)
            seen = set()
            for answers in combinations(KINDS):
                if answers["accelerator"] != accelerator or broken_rules(rules, answers):
                    continue
                text = recipes.trainer_yaml(answers)
                expected = expectation(answers, machine)
                key = (text, tuple(expected.values()))
                if key in seen:
                    continue
                seen.add(key)
                if machine == "tpu":  # Lightning takes one device of a host or all of them
                    tpu_of(8 if expected["devices"] == 1 else expected["devices"], patch)
                assert description(build(text)) == expected, f"{answers}\n{text}"
                built[machine] += 1
    assert set(built) == set(MACHINES[accelerator])


def test_every_model_and_strategy_is_taken_somewhere(rules):
    taken = {
        ((answers["data"], answers["model"]), answers["strategy"])
        for answers in combinations(KINDS)
        if not broken_rules(rules, answers)
    }
    all_pairs = set(itertools.product(KINDS, CHOICES["strategy"]))
    several = [cell for cell in KINDS if SYSTEMS[row_of(*cell)["system"]]["optimizers"] > 1]
    assert ("digits", "gan") in several
    one_only = [name for name in CHOICES["strategy"] if name.startswith(("fsdp", "deepspeed"))]
    assert all_pairs - taken == set(itertools.product(several, {*one_only} - {"fsdp2"}))


def answers_for(**changes):
    return {**DEFAULTS, **changes}


def trainer_settings(recipes, **changes):
    return yaml.safe_load(recipes.trainer_yaml(answers_for(**changes)))


def test_trainer_yaml_is_short_and_explained(recipes, rules):
    for answers in combinations(KINDS):
        if broken_rules(rules, answers):
            continue
        lines = recipes.trainer_yaml(answers).splitlines()
        assert len(lines) < 40
        assert max(map(len, lines)) <= 100, answers
        assert not [line for line in lines if line != line.rstrip()]
        keys = yaml.safe_load("\n".join(lines))["trainer"].keys()
        assert keys - {"sync_batchnorm", "inference_mode"} == {*HARDWARE}
        # FSDP2 fails under torch.inference_mode, as GPUs have shown; gloo does not take it anyway.
        assert ("inference_mode" in keys) == (answers["strategy"] == "fsdp2")


def test_default_accelerator_says_nothing_of_gpus(recipes):
    assert trainer_settings(recipes).keys() == {"trainer"}
    assert trainer_settings(recipes, accelerator="gpu")["float32_matmul_precision"] == "high"


@functools.cache
def data_of(name: str) -> Any:
    """The small data of a project's own tests."""
    with tempfile.TemporaryDirectory() as folder:
        options = (word.removeprefix("--data.") for word in small_data(name, Path(folder)))
        pairs = (option.split("=", 1) for option in options)
        arguments = {key: yaml.safe_load(value) for key, value in pairs}
        made = resolve_name(f"data.{name}.{DATA[name]['class']}")(**arguments)
        assert made.facts  # read while the files are there
        return made


def network_of(data: str, model: str) -> nn.Module:
    """The network of a cell, with its own defaults."""
    row = row_of(data, model)
    return data_of(data).build(resolve_name(f"models.networks.{row['name']}.{row['class']}"))


@pytest.mark.parametrize(("data", "model"), cells(CELLS))
def test_batch_norm_is_synchronized_where_it_can_be(recipes, data, model):
    parts = network_of(data, model).modules()
    has = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts)
    assert has == row_of(data, model)["batch_norm"], (
        f"cookiecutter.json: batch_norm is wrong in the row {model} of _models"
    )
    for strategy in ("auto", "ddp", "ddp_spawn"):
        cell = {"data": data, "model": model, "strategy": strategy}
        gpus = trainer_settings(recipes, accelerator="gpu", devices="2", **cell)
        assert gpus["trainer"].get("sync_batchnorm", False) == has
        cpus = trainer_settings(recipes, accelerator="cpu", devices="2", **cell)
        assert "sync_batchnorm" not in cpus["trainer"]
    single = trainer_settings(recipes, accelerator="gpu", devices="1", data=data, model=model)
    assert "sync_batchnorm" not in single["trainer"]


def test_synchronized_batch_norm_has_no_cpu(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        layer = nn.SyncBatchNorm(3)
        with pytest.raises(ValueError, match="expected input tensor to be on"):
            layer(torch.zeros(2, 3, 4, 4))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("data", "model"),
    cells([cell for cell in CELLS if SYSTEMS[row_of(*cell)["system"]]["optimizers"] == 1]),
)
def test_fsdp_wraps_blocks_of_the_network(recipes, data, model):
    cell = {"data": data, "model": model}
    settings = trainer_settings(recipes, accelerator="gpu", strategy="fsdp", **cell)["trainer"]
    strategy = parsed_strategy(yaml.safe_dump(settings["strategy"]))
    assert type(strategy) is FSDPStrategy
    assert strategy._state_dict_type == "full"
    classes = tuple(strategy.kwargs["auto_wrap_policy"]._module_classes)
    network = network_of(data, model)
    wrapped = {p for m in network.modules() if isinstance(m, classes) for p in m.parameters()}
    held = sum(p.numel() for p in wrapped) / sum(p.numel() for p in network.parameters())
    assert held > 0.75, (
        f"cookiecutter.json: fsdp_blocks in the row {model} of _models must name the classes of its"
        f" blocks; {', '.join(kind.__name__ for kind in classes)} hold {held:.0%} of the weights"
    )


@pytest.fixture
def one_process(tmp_path):
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    # Lightning tells other processes by the environment what they are: a test after this would wait.
    with patch.dict(os.environ):
        yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("data", "model"), cells(CELLS))
def test_fsdp2_shards_every_weight(one_process, data, model):
    from engine.fsdp2 import parallelize

    network = network_of(data, model)
    parallelize(network, one_process)
    assert all(isinstance(weight, DTensor) for weight in network.parameters())


def test_fsdp2_gathers_the_members_of_lists(one_process):
    from engine.fsdp2 import parallelize

    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.none = nn.ModuleList()
            self.scales = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])})

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            for layer in self.scales["a"]:
                inputs = layer(inputs)
            return inputs

    network, inputs = Lists(), torch.randn(3, 2)
    expected = network(inputs)
    parallelize(network, one_process)
    assert isinstance(network.scales["a"][0], FSDPModule)
    torch.testing.assert_close(network(inputs), expected)


def test_fsdp2_shards_a_system_without_a_network(one_process):
    class Plain(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self.layers(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    from engine.fsdp2 import FSDP2

    system, inputs = Plain(), torch.randn(4, 2)
    before = system.layers(inputs).square().mean()
    trainer = Trainer(accelerator="cpu", devices=1, strategy=FSDP2(), max_steps=3, **QUIET)
    trainer.fit(system, torch.utils.data.DataLoader(inputs, batch_size=4))
    assert all(isinstance(weight, DTensor) for weight in system.parameters())
    assert system.layers(inputs).square().mean() < before


def test_deepspeed_stages_and_offload(recipes, monkeypatch):
    simulate(monkeypatch, "cuda")
    stages = {}
    for name in CHOICES["strategy"]:
        if name.startswith("deepspeed"):
            trainer = build(recipes.trainer_yaml(answers_for(accelerator="gpu", strategy=name)))
            assert type(trainer.strategy) is DeepSpeedStrategy
            stages[name] = trainer.strategy.config
    zero = {name: config["zero_optimization"] for name, config in stages.items()}
    assert zero["deepspeed_stage_2"]["stage"] == 2
    assert zero["deepspeed_stage_3"]["stage"] == zero["deepspeed_stage_3_offload"]["stage"] == 3
    offload = zero["deepspeed_stage_3_offload"]
    assert offload["offload_optimizer"]["device"] == offload["offload_param"]["device"] == "cpu"
    # Otherwise DeepSpeed refuses torch's optimizers when it offloads (deepspeed/runtime/engine.py).
    assert stages["deepspeed_stage_3_offload"]["zero_force_ds_cpu_optimizer"] is False


def test_float16_has_an_eps(recipes):
    half = trainer_settings(recipes, accelerator="gpu", precision="16-true")
    eps = half["model"]["init_args"]["optimizer"]["init_args"]["eps"]
    assert isinstance(eps, float)
    assert torch.tensor(eps, dtype=torch.float16) > 0
    assert torch.tensor(1e-8, dtype=torch.float16) == 0
    assert "model" not in trainer_settings(recipes, accelerator="gpu", precision="bf16-true")


@pytest.mark.parametrize(
    ("answers", "wanted", "unwanted"),
    [
        (
            {},
            {"torch>=", "tensorboard>=", "scikit-learn>="},
            {"torchvision", "deepspeed", "torch_xla"},
        ),
        ({"strategy": "deepspeed_stage_2", "accelerator": "gpu"}, {"deepspeed>="}, {"torch_xla"}),
        ({"accelerator": "tpu", "model": "resnet"}, {"torch==2.9.*", "torch_xla"}, {"torch>="}),
        ({"data": "mnist", "logger": "csv"}, {"torchvision>="}, {"scikit-learn", "tensorboard"}),
    ],
)
def test_dependencies(recipes, answers, wanted, unwanted):
    packages = recipes.dependencies(answers_for(**answers))
    assert packages == sorted(packages)
    for package in wanted:
        assert any(line.startswith(package) for line in packages)
    for package in unwanted:
        assert not any(line.startswith(package) for line in packages)
    assert all("<" in line for line in packages if line.startswith(("lightning>", "jsonargparse")))


# --- What the rules refuse ------------------------------------------------------------------------

# Rules whose combinations a Trainer refuses at construction, on the machine where it shows.
AT_CONSTRUCTION = {
    "auto-strategy": "mps",
    "auto-devices": "mps",
    "auto-list": "cpu",
    "auto-mixed": "tpu",
    "auto-64": "tpu",
    "cpu-list": "cpu",
    "cpu-fsdp": "cpu",
    "mps-strategy": "mps",
    "mps-devices": "mps",
    "tpu-strategy": "tpu",
    "tpu-devices": "tpu",
    "tpu-list": "tpu",
    "tpu-precision": "tpu",
    "fsdp-64": "cuda",
    "fsdp2-precision": "cuda",
    "deepspeed-64": "cuda",
}
# Rules whose combinations a Trainer takes, and that fail or do something else: tested one by one.
LATER = {
    "auto-nodes",
    "auto-16-true",
    "cpu-deepspeed",
    "cpu-16-mixed",
    "mps-nodes",
    "mps-64",
    "tpu-nodes",
    "tpu-16-true",
    "fsdp-gan",
    "fsdp-batch-norm",
    "deepspeed-list",
    "deepspeed-gan",
    "ddp_spawn-nodes",
}
REJECTIONS = (ValueError, TypeError, RuntimeError, MisconfigurationException)


def naive_trainer(answers: dict[str, str]) -> Trainer:
    """The answers given to Lightning as they are."""
    from engine.fsdp2 import FSDP2

    devices, strategy, precision = (answers[k] for k in ("devices", "strategy", "precision"))
    return Trainer(
        accelerator=answers["accelerator"],
        devices=devices if devices == "auto" else yaml.safe_load(devices),
        num_nodes=int(answers["num_nodes"]),
        strategy=FSDP2() if strategy == "fsdp2" else strategy,
        precision="32-true" if precision == "auto" else precision,
        **QUIET,
    )


def test_every_rule_is_shown_and_needed(rules):
    alone, together = set(), set()
    for answers in combinations():
        broken = broken_rules(rules, answers)
        together |= broken
        alone |= broken if len(broken) == 1 else set()
    # Three devices: no TPU host has them, and the space above does not.
    odd = broken_rules(rules, answers_for(accelerator="tpu", devices="3"))
    assert odd == {"tpu-devices"}
    assert together | odd == set(AT_CONSTRUCTION) | LATER
    assert alone == together, "a rule that only refuses what others refuse as well"
    tests = {
        name.removeprefix("test_later_") for name in globals() if name.startswith("test_later_")
    }
    assert tests == {rule.replace("-", "_") for rule in LATER}


@pytest.mark.parametrize("machine", ["cpu", "mps", "tpu", "cuda"])
def test_what_is_refused_at_construction(rules, machine, monkeypatch):
    simulate(monkeypatch, machine)
    here = {rule for rule, where in AT_CONSTRUCTION.items() if where == machine}
    refused = Counter()
    for answers in combinations(models=[("digits", "cnn")]):
        if answers["accelerator"] == "gpu" and machine != "cuda":
            continue
        for rule in broken_rules(rules, answers) & here:
            refused[rule] += 1
        if broken_rules(rules, answers) & here:
            with pytest.raises(REJECTIONS):
                naive_trainer(answers)
                pytest.fail(f"Lightning takes {answers}")
    assert here - {"tpu-devices"} <= set(refused)
    if machine == "tpu":
        for cores in rules.TPU_DEVICES:
            tpu_of(cores, monkeypatch)
            with pytest.raises(ValueError, match="devices"):
                naive_trainer(answers_for(accelerator="tpu", devices="3"))


def test_later_cpu_16_mixed(monkeypatch):
    with pytest.warns(UserWarning, match="Using `precision='bf16-mixed'` instead"):
        trainer = naive_trainer(answers_for(accelerator="cpu", precision="16-mixed"))
    assert trainer.precision_plugin.precision == "bf16-mixed"


@pytest.mark.parametrize("name", [name for name in CHOICES["strategy"] if "deepspeed" in name])
def test_later_cpu_deepspeed(monkeypatch, name):
    simulate(monkeypatch, "cpu")
    trainer = naive_trainer(answers_for(accelerator="cpu", strategy=name))
    assert isinstance(trainer.accelerator, CPUAccelerator)
    with pytest.raises(RuntimeError, match="only supported on CUDA GPUs"):
        trainer.strategy.setup_environment()


def test_later_mps_nodes(monkeypatch):
    simulate(monkeypatch, "mps")
    for accelerator in ("mps", "auto"):
        trainer = naive_trainer(answers_for(accelerator=accelerator, num_nodes="2"))
        # The strategy that Lightning refuses on a Mac when it is named.
        assert type(trainer.strategy) is DDPStrategy
        assert trainer.strategy.root_device.type == "mps"
        monkeypatch.setattr(torch.cuda, "Stream", MagicMock(side_effect=RuntimeError("no CUDA")))
        with pytest.raises(RuntimeError, match="no CUDA"):
            trainer.strategy._setup_model(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="not supported on the MPS accelerator"):
        naive_trainer(answers_for(accelerator="mps", num_nodes="2", strategy="ddp"))


test_later_auto_nodes = test_later_mps_nodes


def test_later_mps_64():
    """torch says so in its own files, here without a Mac: in a kernel's check, before in its tests."""
    torch_folder = Path(torch.__file__).parent
    kernels = torch_folder / "include/ATen/native/mps/OperationUtils.h"
    tests = torch_folder / "testing/_internal/common_methods_invocations.py"
    assert "float64 is not supported on MPS" in kernels.read_text(
        "utf-8"
    ) or "MPS does not support float64" in tests.read_text("utf-8")


def test_later_tpu_nodes(monkeypatch):
    simulate(monkeypatch, "tpu")
    trainer = naive_trainer(answers_for(accelerator="tpu", num_nodes="2", devices="1"))
    assert (trainer.num_nodes, trainer.world_size) == (1, 1)
    trainer = naive_trainer(answers_for(accelerator="tpu", num_nodes="2"))
    runtime = SimpleNamespace(world_size=lambda: 8, global_ordinal=lambda: 3)
    monkeypatch.setitem(sys.modules, "torch_xla", SimpleNamespace(runtime=runtime))
    monkeypatch.setattr("lightning.fabric.plugins.environments.xla._XLA_GREATER_EQUAL_2_1", True)
    trainer.strategy._launched = True
    assert trainer.strategy.num_nodes == 2
    # 2 nodes of 8 devices, and Lightning takes the number of processes that XLA tells it.
    assert trainer.strategy.distributed_sampler_kwargs == {"num_replicas": 8, "rank": 3}


def test_later_tpu_16_true(monkeypatch):
    """Lightning sets an environment variable and converts nothing. torch_xla 2.9.0 does not read it:
    its library has no such name, and a float32 matrix product stays one in the compiled program."""
    simulate(monkeypatch, "tpu")
    monkeypatch.setenv("XLA_USE_F16", "0")
    for accelerator in ("tpu", "auto"):
        trainer = naive_trainer(answers_for(accelerator=accelerator, precision="16-true"))
        assert isinstance(trainer.precision_plugin, XLAPrecision)
        assert os.environ["XLA_USE_F16"] == "1"
        layer = trainer.precision_plugin.convert_module(nn.Linear(2, 2))
        assert layer.weight.dtype == torch.float32
        assert trainer.precision_plugin.convert_input(torch.ones(2)).dtype == torch.float32


test_later_auto_16_true = test_later_tpu_16_true


def test_later_deepspeed_list(monkeypatch):
    simulate(monkeypatch, "cuda")
    for name in CHOICES["strategy"]:
        if name.startswith("deepspeed"):
            trainer = naive_trainer(answers_for(accelerator="gpu", devices="[1, 3]", strategy=name))
            with pytest.raises(RuntimeError, match="don't match the local rank"):
                trainer.strategy.setup_distributed()


def gan() -> LightningModule:
    from models.gan import GAN
    from models.networks.gan import ConvGAN

    return GAN(ConvGAN((1, 8, 8)))


def test_later_deepspeed_gan(monkeypatch):
    simulate(monkeypatch, "cuda")
    trainer = naive_trainer(answers_for(accelerator="gpu", strategy="deepspeed_stage_2"))
    system = gan()
    trainer.strategy.connect(system)
    system.trainer = trainer
    with pytest.raises(MisconfigurationException, match="only supports single optimizer"):
        trainer.strategy._init_optimizers()


def test_later_ddp_spawn_nodes(monkeypatch):
    """Whoever starts several machines starts all processes; ddp leaves it at that, ddp_spawn not."""
    torchrun = {"RANK": "0", "GROUP_RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    torchrun |= {"WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "1"}
    slurm = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}
    slurm |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1"}
    for environment in (torchrun, slurm):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            cluster = {"accelerator": "cpu", "devices": "2", "num_nodes": "2"}
            ddp = naive_trainer(answers_for(strategy="ddp", **cluster)).strategy
            spawn = naive_trainer(answers_for(strategy="ddp_spawn", **cluster)).strategy
            assert ddp.cluster_environment.creates_processes_externally
            assert spawn.cluster_environment.creates_processes_externally
            assert ddp.launcher.launch(lambda: "here") == "here"
            started = MagicMock(side_effect=InterruptedError)
            patch.setattr(multiprocessing.mp, "start_processes", started)
            with pytest.raises(InterruptedError):
                spawn.launcher.launch(lambda: "here")
            assert started.call_args.kwargs["nprocs"] == 2  # in each of the two that there are


FSDP_ON_CPU = """
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import _init_utils, fully_sharded_data_parallel
from torch.distributed.fsdp._common_utils import _FSDPDeviceHandle
from torch.utils.data import DataLoader, TensorDataset

# torch's FSDP refuses CPUs at its door only; behind it, it works with them well enough for this.
def on_cpu(state, *_):
    state._device_handle = _FSDPDeviceHandle.from_device(torch.device("cpu"))
    return state

fully_sharded_data_parallel._init_device_handle = on_cpu
_init_utils._get_compute_device = lambda *_: torch.device("cpu")
fully_sharded_data_parallel._get_compute_device = lambda *_: torch.device("cpu")

class OnCPU(FSDPStrategy):  # Lightning refuses the class itself on CPUs, not what derives from it
    pass

from models.classifier import Classifier
from models.gan import GAN
from models.networks.cnn import CNN
from models.networks.gan import ConvGAN

data = DataLoader(TensorDataset(torch.rand(8, 1, 8, 8), torch.arange(8)), batch_size=4)
for system in Classifier(CNN((1, 8, 8), 10)), GAN(ConvGAN((1, 8, 8))):
    trainer = Trainer(accelerator="cpu", devices=1, strategy=OnCPU(), max_epochs=1, logger=False,
                      limit_val_batches=0, enable_progress_bar=False, enable_checkpointing=False)
    trainer.fit(system, data)
    print(type(system).__name__, "was trained")
    torch.distributed.destroy_process_group()
"""


def test_later_fsdp_gan(tmp_path):
    """FSDP does not allow a backward pass inside the forward pass that it sees, the training step.

    Its bookkeeping is the same on every device. On a CPU it trains a cnn, so the trick is not what
    the gan fails from.
    """
    script = tmp_path / "script.py"
    script.write_text(FSDP_ON_CPU)
    run = subprocess.run(
        [sys.executable, str(script)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=120,
    )
    assert "Classifier was trained" in run.stdout, run.stderr
    assert "GAN was trained" not in run.stdout
    assert "Expects `BACKWARD_PRE` or `BACKWARD_POST` state but got" in run.stderr


BATCH_NORM_IN_FSDP = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
half = MixedPrecision(torch.bfloat16, torch.bfloat16, torch.bfloat16)  # as Lightning has it
for norm in (nn.GroupNorm(1, 4), nn.BatchNorm2d(4)):
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), norm)).to(torch.bfloat16)
    network = FullyShardedDataParallel(
        network,
        auto_wrap_policy=ModuleWrapPolicy({nn.Sequential}),
        mixed_precision=half,
        use_orig_params=True,
        device_id=torch.device("cpu"),
    )
    print(type(norm).__name__, "begins", flush=True)
    network(torch.randn(2, 3, 8, 8, dtype=torch.bfloat16))
"""


def test_later_fsdp_batch_norm():
    """Seen first on a GPU; torch's FSDP does the same on a CPU, where Lightning's does not run."""
    run = subprocess.run(
        [sys.executable, "-c", BATCH_NORM_IN_FSDP], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert run.stdout.split() == ["GroupNorm", "begins", "BatchNorm2d", "begins"]
    assert re.search(r"RuntimeError: .*(dtype|scalar type)", run.stderr), run.stderr[-500:]


# --- The table -----------------------------------------------------------------------------------


def test_readme_has_the_table_of_these_rules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import hardware_table

    _, inside, _ = hardware_table.split(hardware_table.PLACE.read_text("utf-8"))
    assert inside == hardware_table.table(), (
        "docs/accelerators.md differs from the rules: run python benchmarks/hardware_table.py --write"
    )


# --- The advice -----------------------------------------------------------------------------------


def test_every_refusal_names_hardware_that_works(rules):
    for number, answers in enumerate(combinations()):
        if not broken_rules(rules, answers):
            continue
        named, kept = rules.nearest(answers) if number % 5 == 0 else ([], [])
        for change in [*named, *kept]:
            assert not broken_rules(rules, {**answers, **change}), (answers, change)
        if answers["accelerator"] != "auto":
            assert not named and all("accelerator" not in change for change in kept)
        if number % 50 == 0:
            found = rules.problems(answers)
            assert found
            assert all(problem.reason and problem.allowed for problem in found)
            fixed = rules.fixed(answers)
            assert rules.problems(fixed) == []
            assert fixed["model"] == answers["model"]
            if answers["accelerator"] != "auto":
                assert fixed["accelerator"] == answers["accelerator"]
            kept = rules.fixed(answers, keep_auto=True)
            assert kept["accelerator"] == answers["accelerator"] and not rules.problems(kept)


@pytest.mark.parametrize(
    ("answers", "change"),
    [
        ({"accelerator": "auto", "strategy": "ddp"}, {"accelerator": "gpu"}),
        ({"accelerator": "auto", "devices": "2"}, {"accelerator": "gpu"}),
        ({"accelerator": "cpu", "strategy": "fsdp"}, {"strategy": "fsdp2"}),
        ({"accelerator": "cpu", "precision": "16-mixed"}, {"precision": "bf16-mixed"}),
        ({"accelerator": "cpu", "devices": "[0, 1]"}, {"devices": "2"}),
        ({"accelerator": "mps", "strategy": "ddp"}, {"strategy": "auto"}),
        ({"accelerator": "mps", "precision": "64-true"}, {"precision": "32-true"}),
        (
            {"accelerator": "gpu", "strategy": "fsdp2", "precision": "16-mixed"},
            {"precision": "bf16-mixed"},
        ),
        ({"accelerator": "gpu", "strategy": "fsdp", "model": "gan"}, {"strategy": "fsdp2"}),
        (
            {"accelerator": "gpu", "strategy": "deepspeed_stage_2", "model": "gan"},
            {"strategy": "fsdp2"},
        ),
        ({"accelerator": "cpu", "num_nodes": "2", "strategy": "ddp_spawn"}, {"strategy": "ddp"}),
        ({"accelerator": "tpu", "num_nodes": "2"}, {"num_nodes": "1"}),
        (
            {"accelerator": "mps", "strategy": "ddp", "precision": "64-true"},
            {"strategy": "auto", "precision": "32-true"},
        ),
        (
            {"accelerator": "mps", "devices": "2", "strategy": "ddp", "num_nodes": "2"},
            {"devices": "auto", "strategy": "auto", "num_nodes": "1"},
        ),
        (
            {"accelerator": "auto", "data": "mnist", "model": "auto", "devices": "2"},
            {"accelerator": "gpu"},
        ),
    ],
)
def test_the_nearest_change_comes_first(rules, answers, change):
    named, kept = rules.nearest(answers_for(**answers))
    assert (named or kept)[0] == change


@pytest.mark.parametrize(
    ("answers", "named", "kept"),
    [
        ({"devices": "2"}, {"accelerator": "gpu"}, {"devices": "auto"}),
        ({"strategy": "ddp"}, {"accelerator": "gpu"}, {"strategy": "auto"}),
        (
            {"strategy": "fsdp", "devices": "[0, 1]", "num_nodes": "2"},
            {"accelerator": "gpu"},
            {"strategy": "auto", "devices": "auto", "num_nodes": "1"},
        ),
    ],
)
def test_where_no_accelerator_was_named_both_ways_are_offered(rules, answers, named, kept):
    wrong = answers_for(**answers)
    first, second = rules.nearest(wrong)
    assert (first[0], second[0]) == (named, kept)
    report = rules.report(wrong, rules.problems(wrong))
    for change in (named, kept):
        assert rules.quoted([f"{k}={v}" for k, v in {**wrong, **change}.items()]) in report
        assert all(f"{prompt}=" in report for prompt in change)
