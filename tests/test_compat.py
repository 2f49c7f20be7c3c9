"""What a project uses of its dependencies' private names: each is there and does what is needed.

A test named `..._is_still_needed` fails when a dependency no longer has the fault, or has a public
way: then the workaround is to be dropped.
"""

import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel, ManualOptimBoringModel
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy, model_parallel
from projects import inside

ROOMS = ("engine", "callbacks", "data", "models", "configs", "launch")


@pytest.fixture(scope="module")
def compat(render):
    with inside(render()):
        from engine import compat

        yield compat


def drop(name: str) -> str:
    return f"drop {name} from engine/compat.py"


# --- Private names stand in one file -----------------------------------------------------------------


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(trees: list[ast.Module]) -> set[str]:
    """Private names that the project itself gives to functions, classes, variables, attributes."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if is_private(name)}


def foreign_names(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Private names of others that a file imports, reads, sets, overrides, or asks for as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            words = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (word for word in words if is_private(word))
        elif isinstance(node, ast.Import):
            words = [word for alias in node.names for word in alias.name.split(".")]
            yield from (word for word in words if is_private(word))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.ClassDef) and node.bases:
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            yield from (method.name for method in methods if is_private(method.name))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr"):
            texts = [item.value for item in node.args if isinstance(item, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and is_private(text))


def foreign_names_by_file(project: Path) -> dict[str, set[str]]:
    files = [*project.glob("*.py")]
    files += [path for room in ROOMS for path in (project / room).rglob("*.py")]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    own = own_names(list(trees.values()))
    found = {p.relative_to(project).as_posix(): {*foreign_names(trees[p], own)} for p in files}
    return {path: names for path, names in found.items() if names}


PROJECTS = [
    {"model": "cnn"},
    {"model": "autoencoder", "data": "image_folder"},
    {"model": "gan", "strategy": "fsdp2", "accelerator": "cpu", "devices": "2"},
]


@pytest.mark.parametrize("answers", PROJECTS, ids=lambda answers: "-".join(answers.values()))
def test_private_names_of_dependencies_stand_in_one_file(render, answers):
    found = foreign_names_by_file(render(**answers))
    assert len(found.pop("engine/compat.py")) <= 15
    assert found == {}, "use a public name, or move it to engine/compat.py with its reason"


def test_what_is_private_to_others_is_found(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "mine.py").write_text(
        "import torch._C\n"
        "from lightning.pytorch.cli import _InstantiatorFn as Public\n"
        "def _own(): return trainer._logger_connector, _own, module._own\n"
        "class Logger(CSVLogger):\n"
        "    def _check_log_dir_exists(self): return getattr(self, '_experiment', None)\n"
    )
    names = {"_C", "_InstantiatorFn", "_logger_connector", "_check_log_dir_exists", "_experiment"}
    assert foreign_names_by_file(tmp_path) == {"engine/mine.py": names}


# --- jsonargparse ------------------------------------------------------------------------------------

SWAP = """
from jsonargparse import ArgumentParser

class Base: pass
class Old(Base):
    def __init__(self, decay: float = 0.0): pass
class New(Base):
    def __init__(self, decay: float = 0.0): pass

parser = ArgumentParser()
parser.add_argument("--x", type=Base)
options = ["--x=__main__.Old", "--x.decay=0.5", "--x=__main__.New"]
print(parser.parse_args(options).x.init_args.decay)
"""


def test_on_class_swap_is_still_needed():
    command = [sys.executable, "-c", SWAP]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "0.5\n", drop("on_class_swap")


def test_on_class_swap_is_called_for_each_swap(compat):
    from jsonargparse import ArgumentParser, _typehints

    before = _typehints.discard_init_args_on_class_path_change
    swaps = []
    try:
        compat.on_class_swap(lambda _, old, new: swaps.append((class_of(old), class_of(new))))
        parser = ArgumentParser()
        parser.add_argument("--x", type=Log)
        parser.parse_args(["--x=test_compat.Log", "--x=test_compat.OtherLog"])
    finally:
        _typehints.discard_init_args_on_class_path_change = before
    assert ("test_compat.Log", "test_compat.OtherLog") in swaps


def class_of(config) -> str | None:
    return config and config["class_path"]


# --- The command line --------------------------------------------------------------------------------


class Kept(LightningModule):
    def __init__(self, network: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()


def made(compat, links: dict) -> dict:
    """The hyperparameters of a module that LightningCLI makes."""
    config = {"class_path": "Kept", "init_args": {"network": {"init_args": {"width": 1}}}}
    cli = SimpleNamespace(config_dump={"model": config}, _dump_config=lambda: None)
    make = compat.ModuleInstantiator(cli, "model")
    return dict(make(Kept, applied_instantiation_links=links).hparams)


def test_make_optional_is_still_needed():
    from jsonargparse import ArgumentParser

    assert "linked_targets" not in signature(ArgumentParser.add_function_arguments).parameters


def test_the_class_of_a_system_is_taken_out_of_its_hyperparameters(compat):
    hparams = made(compat, {})
    assert compat.pop_class_path(hparams) == "Kept"
    assert hparams == {"network": {"init_args": {"width": 1}}}
    assert compat.pop_class_path(hparams) is None


def test_the_module_instantiator_is_still_needed(compat):
    hparams = made(compat, {"model.init_args.network.init_args.unknown": 3})
    assert "unknown" in hparams["network"]["init_args"], drop("ModuleInstantiator")


def test_the_settings_for_checkpoints_can_be_given():
    """What engine/cli.py puts into `config_dump` is not overwritten."""
    cli = SimpleNamespace(config_dump={"model": 1})
    LightningCLI._dump_config(cli)
    assert cli.config_dump == {"model": 1}


# --- Checkpoints -------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded.ckpt"
    weights = {"state_dict": {"weight": torch.ones(2)}}
    torch.distributed.checkpoint.save(weights, checkpoint_id=folder, no_dist=True)
    torch.save({"epoch": 3}, folder / "meta.pt")
    return folder


def test_a_sharded_checkpoint_is_loaded_whole(compat, sharded):
    checkpoint = compat.load_sharded(sharded)
    assert torch.equal(checkpoint["state_dict"]["weight"], torch.ones(2))
    assert checkpoint["epoch"] == 3


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_load_sharded_is_still_needed(sharded, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["consolidate_checkpoint", str(sharded)])
    with pytest.raises(KeyError, match="model"):
        runpy.run_module("lightning.pytorch.utilities.consolidate_checkpoint", run_name="__main__")
        pytest.fail(drop("load_sharded"))


def mesh_sizes(monkeypatch, strategy: ModelParallelStrategy) -> tuple[int, int]:
    """Over how many devices a strategy for two shards data, and tensors."""
    sizes = []
    monkeypatch.setattr(model_parallel, "_setup_device_mesh", lambda *given: sizes.append(given))
    monkeypatch.setattr(type(strategy), "_setup_distributed", lambda self: None)
    strategy.accelerator = SimpleNamespace(setup_device=lambda device: None)
    strategy.parallel_devices = [torch.device("cpu")] * 2
    strategy.cluster_environment = SimpleNamespace(local_rank=lambda: 0)
    strategy.connect(BoringModel())
    monkeypatch.setattr(type(strategy), "world_size", 2)
    strategy.setup_environment()
    return sizes[0][:2]


def test_data_is_sharded_over_all_devices(compat, monkeypatch):
    strategy = ModelParallelStrategy()
    strategy.parallel_devices = [torch.device("cpu")] * 2
    compat.shard_over_all(strategy)
    assert mesh_sizes(monkeypatch, strategy) == (2, 1)


def test_shard_over_all_is_still_needed(monkeypatch):
    """By default the tensors are sharded, not the data; the constructor knows no other `auto`."""
    assert mesh_sizes(monkeypatch, ModelParallelStrategy()) == (1, 2), drop("shard_over_all")
    other = ModelParallelStrategy(tensor_parallel_size=1)
    assert mesh_sizes(monkeypatch, other) == (1, 1), drop("shard_over_all")


# --- Processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "spawned"), [("auto", False), ("ddp", False), ("ddp_spawn", True)]
)
def test_strategies_that_spawn_their_processes_are_known(compat, strategy, spawned):
    devices = 1 if strategy == "auto" else 2
    trainer = Trainer(accelerator="cpu", devices=devices, strategy=strategy, logger=False)
    assert compat.spawns(trainer.strategy) == spawned
    public = ("start_method", "spawns", "starts_processes")
    assert not any(hasattr(trainer.strategy, name) for name in public), drop("spawns")


def test_find_unused_is_still_needed(compat):
    """With two optimizers ddp wants it; it is told in the constructor, of a strategy that is named."""
    strategy = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False).strategy
    assert "find_unused_parameters" not in strategy._ddp_kwargs, drop("find_unused")
    compat.find_unused(strategy)
    assert strategy._ddp_kwargs["find_unused_parameters"]


# --- Steps -------------------------------------------------------------------------------------------


class Log(Logger):
    """Keeps what is logged, by step."""

    name, version = "log", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[str, int]] = []

    def log_hyperparams(self, *args, **kwargs) -> None:
        pass

    def log_metrics(self, metrics, step=None) -> None:
        self.rows += [(name, step) for name in metrics if name != "epoch"]


class OtherLog(Log):
    pass


class Two(ManualOptimBoringModel):
    """Steps two optimizers in each batch."""

    def training_step(self, batch, batch_idx):
        super().training_step(batch, batch_idx)
        self.optimizers().step()
        self.log("loss", float(batch_idx))


class One(BoringModel):
    def training_step(self, batch, batch_idx):
        self.log("loss", float(batch_idx))
        return super().training_step(batch, batch_idx)


def fit(system: LightningModule, *callbacks: Callback, **options) -> tuple[Trainer, Log]:
    log = Log()
    quiet = dict.fromkeys(("progress_bar", "model_summary", "checkpointing"), False)
    quiet = {f"enable_{name}": value for name, value in quiet.items()}
    small = {"max_epochs": 2, "limit_train_batches": 4, "limit_val_batches": 1, **options}
    trainer = Trainer(
        accelerator="cpu",
        logger=log,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **quiet | small,
    )
    trainer.fit(system)
    return trainer, log


@pytest.mark.parametrize("interval", [2, 4])
def test_a_validation_is_known_before_it_comes(compat, interval):
    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            events.append(compat.validates_next(trainer))

        def on_validation_start(self, *_):
            events.append("validation")

    events = []
    trainer, _ = fit(One(), Watch(), val_check_interval=interval)
    after = [event for event, before in zip(events[1:], events, strict=False) if before is True]
    assert after + events[-1:] * (events[-1] is True) == ["validation"] * (8 // interval)
    assert events.count(True) == events.count("validation") == 8 // interval
    loop = trainer.fit_loop.epoch_loop
    public = ("should_check_val", "should_check_val_fx", "should_validate")
    assert not any(hasattr(loop, name) for name in public), drop("validates_next")


def test_log_step_is_still_needed(compat):
    """A step is logged after the hooks: one in which a fit stops would not be."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                before.extend(trainer.logger.rows)
                compat.log_step(trainer)
                after.extend(trainer.logger.rows)
                raise SystemExit

    before, after = [], []
    with pytest.raises(SystemExit):
        fit(One(), Stop())
    assert before == [("loss", 0), ("loss", 1)], drop("log_step")
    assert after == [*before, ("loss", 2)]


@pytest.mark.parametrize("system", [One, Two])
def test_the_step_of_metrics_is_known(compat, system):
    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            steps.append(compat.step_logged(trainer))
            counted.append(trainer.global_step - 1)

    steps, counted = [], []
    _, log = fit(system(), Watch(), limit_val_batches=0)
    assert [("loss", step) for step in steps] == log.rows
    if system is Two:
        assert counted != steps, drop("step_logged") + ": global_step counts the same"


@pytest.mark.parametrize("when", [{"every_n_train_steps": 3}, {"every_n_epochs": 1}])
def test_the_step_after_a_checkpoint_is_known(compat, tmp_path, when):
    save = ModelCheckpoint(tmp_path, save_top_k=-1, save_on_train_epoch_end=True, **when)
    fit(One(), save, enable_checkpointing=True, limit_val_batches=0)
    path = sorted(tmp_path.glob("*.ckpt"))[0]
    loops = torch.load(path, weights_only=True)["loops"]
    _, log = fit_on(path)
    assert compat.step_saved(loops) == log.rows[0][1] == (3 if "every_n_train_steps" in when else 4)
    if "every_n_train_steps" in when:
        stored = loops["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"]
        assert stored == 2, "drop mid_epoch from step_saved in engine/compat.py"


def fit_on(path: Path) -> tuple[Trainer, Log]:
    log = Log()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=4,
        limit_val_batches=0,
        logger=log,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(One(), ckpt_path=path)
    return trainer, log


# --- Callbacks and loggers ---------------------------------------------------------------------------


class Weight(One):
    def test_step(self, batch, batch_idx):
        self.tested = self.layer.weight.detach().clone()


class Actions(Profiler):
    """The hooks of callbacks and systems that Lightning calls, by the actions of its profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def start(self, action_name: str) -> None:
        self.seen.add(action_name)

    def stop(self, action_name: str) -> None:
        pass


def hooks_called(skip) -> set[str]:
    class Counts(Callback):
        def on_train_batch_end(self, *args) -> None:
            pass

    system, profiler = BoringModel(), Actions()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(fast_dev_run=1, callbacks=[Counts()], profiler=profiler, **options)
    skip(trainer, system)
    trainer.fit(system)
    return {action.rpartition(".")[2] for action in profiler.seen if "Counts" in action}


def test_idle_hooks_are_skipped_and_no_others(compat):
    called = hooks_called(compat.skip_idle_hooks)
    assert called & {*compat.STEP_HOOKS} == {"on_train_batch_end"}
    assert "on_train_epoch_end" in called


def test_skip_idle_hooks_is_still_needed(compat):
    called = hooks_called(lambda *_: None)
    assert called >= {*compat.STEP_HOOKS}, drop("skip_idle_hooks")


def test_forget_averages_is_still_needed(compat, tmp_path):
    average, path = EMAWeightAveraging(decay=0.5), tmp_path / "one.ckpt"
    save = ModelCheckpoint(tmp_path, "one", save_on_train_epoch_end=True)
    system = Weight()
    trainer, _ = fit(system, average, save, enable_checkpointing=True, max_epochs=1)
    saved = torch.load(path, weights_only=True)
    newest, averaged = (saved[k]["layer.weight"] for k in ("current_model_state", "state_dict"))
    trainer.test(system, ckpt_path=path, verbose=False)
    assert torch.equal(system.tested, newest), drop("forget_averages")
    compat.forget_averages(trainer)
    trainer.test(system, ckpt_path=path, verbose=False)
    assert torch.equal(system.tested, averaged)
    assert not torch.equal(newest, averaged)


def test_the_csv_logger_keeps_what_is_there(compat, tmp_path):
    for step in range(2):
        logger = compat.AppendingCSVLogger(tmp_path, name="", version="")
        logger.log_metrics({"loss": 0.5}, step)
        logger.finalize("success")
    assert (tmp_path / "metrics.csv").read_text().split() == ["loss,step", "0.5,0", "0.5,1"]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_appending_csv_logger_is_still_needed(tmp_path):
    (tmp_path / "metrics.csv").write_text("loss,step\n0.5,0\n")
    ExperimentWriter(str(tmp_path))
    assert not (tmp_path / "metrics.csv").exists(), drop("AppendingCSVLogger")
    assert hasattr(CSVLogger(tmp_path), "_experiment")


# --- Workarounds with public names -------------------------------------------------------------------


def test_that_fused_optimizers_are_not_clipped_is_still_so():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], fused=True)
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
        pytest.fail("drop allow_clipping from engine/parsing.py")


def test_that_wandb_warns_of_what_lightning_passes_is_still_so(tmp_path, capfd):
    import wandb

    logger = WandbLogger(save_dir=tmp_path, offline=True)
    assert "anonymous" in logger._wandb_init, "drop WANDB_WARNING from engine/loggers.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb.errors.term, "_printed_messages", set())
        wandb.Settings(anonymous="allow")
        assert "anonymous setting has no effect" in capfd.readouterr().err


def test_strategies_have_a_launcher():
    assert "launcher" in dir(Strategy)
