"""What is changed of the Trainer's settings before it is made, and of the Trainer after."""

import os
import re
from inspect import unwrap
from math import inf
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, strategies
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.parameter import UninitializedParameter

from engine.checkpoint_io import AtomicCheckpointIO
from engine.compat import find_unused, skip_idle_hooks
from engine.errors import UserError
from engine.last_checkpoint import named

# The least numbers that mean something, where that is not 0: -1 is all, or without end.
ENDLESS = ("max_epochs", "max_steps", "devices", "save_top_k", "num_sanity_val_steps")
ANY = ("min_delta", "stopping_threshold", "divergence_threshold")
LEAST = dict.fromkeys(ENDLESS, -1) | dict.fromkeys(ANY, -inf) | {"val_check_interval": 1e-6}
LEAST |= dict.fromkeys(("accumulate_grad_batches", "check_val_every_n_epoch"), 1)
BASES = ("models.system", "engine.data_module")
HOOK = re.compile("on_|setup|state_dict|load_state_dict")


def as_list(setting: Any) -> list[Any]:
    """What the Trainer takes one of, a list, or none."""
    return setting if isinstance(setting, list) else [setting] if setting else []


def check_numbers(groups: dict[str, Namespace]) -> None:
    """Raises a UserError for numbers of the Trainer and the callbacks that are too small."""
    for group, settings in groups.items():
        for name, value in vars(settings).items():
            least = LEAST.get(name, 0)
            if isinstance(value, int | float) and value < least:
                raise UserError(f"{group}.{name} is {value}: it must be {least} or more")


def allow_clipping(model: Namespace, trainer: Namespace) -> None:
    """Lightning clips no gradients in mixed precision when the optimizer is fused."""
    optimizer = (model.init_args or {}).get("optimizer")
    if trainer.gradient_clip_val and "mixed" in str(trainer.precision):
        if isinstance(optimizer, Namespace) and optimizer.get("init_args", {}).get("fused"):
            optimizer.init_args.fused = False


def check_saves(config: Namespace) -> None:
    """Refuses checkpoints that overwrite each other, or have the score of other weights."""
    for name in ("best_checkpoint", "last_checkpoint"):
        if config[name].save_top_k not in (0, 1) and "{" not in (config[name].filename or "{"):
            raise UserError(
                f"{name}.save_top_k is {config[name].save_top_k}, but all would have one name: "
                f"give --{name}.filename as well, such as '{{epoch}}-{{step}}'"
            )
    best = config.best_checkpoint
    if best.filename and best.auto_insert_metric_name:
        best.filename, best.auto_insert_metric_name = named(best.filename), False
    for saves in (best, *(one.get("init_args") for one in as_list(config.trainer.callbacks))):
        between = saves and (saves.get("every_n_train_steps") or saves.get("train_time_interval"))
        if between and str(saves.get("monitor")).startswith("val/"):
            raise UserError(
                f"{saves.monitor} is not measured where every_n_train_steps and "
                "train_time_interval save: the weights of a step would get the score of others. To "
                "measure after N steps give --trainer.val_check_interval N, to save "
                "--last_checkpoint.every_n_train_steps N"
            )


def drop_callbacks(keys: list[str], config: Namespace) -> None:
    """Removes the callbacks that the Trainer has no use for."""
    check_saves(config)
    trainer = config.trainer
    if trainer.enable_progress_bar is False or "ProgressBar" in str(trainer.callbacks):
        keys.remove("progress_bar")
    if trainer.enable_checkpointing is False:
        if config.test_after_fit:
            raise UserError("test_after_fit: with enable_checkpointing false there is no best one")
        keys.remove("best_checkpoint")
        keys.remove("last_checkpoint")
    if not trainer.logger:
        keys.remove("lr_monitor")


def check_hooks(made: Any) -> None:
    """Raises a UserError if a child of `System` or `Data` overrides a hook that these work by, and
    does not call it: a schedule would not know the length of the fit, and never fall."""
    kinds = type(made).__mro__
    base = next((kind for kind in kinds if kind.__module__ in BASES), object)
    for kind in kinds[: kinds.index(base)]:
        for name in filter(HOOK.match, vars(kind).keys() & vars(base).keys()):
            code: Any = getattr(unwrap(vars(kind)[name]), "__code__", None)
            own_means = "validation_step" in vars(kind) and name.startswith(("on_val", "on_test"))
            if code and not {"super", name} & {*code.co_names} and not own_means:
                why = f"{base.__name__} works by it"
                raise UserError(f"{kind.__name__}.{name} has to call super().{name}(...): {why}")


def prepare(trainer: Trainer, system: LightningModule, data: Any, best: ModelCheckpoint) -> None:
    """What the Trainer's arguments cannot say. Of several callbacks that save checkpoints,
    Lightning asks the first for the best one."""
    check_hooks(system)
    check_hooks(data)
    saving = trainer.checkpoint_callbacks  # Lightning has put them at the end
    trainer.callbacks.sort(key=lambda callback: (callback in saving, callback is not best))
    save_whole(trainer.strategy)
    skip_idle_hooks(trainer, system)
    if len(getattr(system, "parts", ())) > 1:  # each backward pass is of one of them
        find_unused(trainer.strategy)
    if not torch.cuda.is_available():
        # Lightning sets it: torch would look on disk for NVIDIA's library in each step of Adam.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)


def save_whole(strategy: strategies.Strategy) -> None:
    """Makes saves atomic where a checkpoint is one file of torch's; XLA has its own way."""
    kinds = strategies.DDPStrategy, strategies.FSDPStrategy, strategies.SingleDeviceStrategy
    if isinstance(strategy, kinds) and type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()


class Heading(Callback):
    """Says what is trained, and on what; ``trainer.enable_model_summary`` has a table."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # later on a strategy may have sharded the parameters
            network: Any = getattr(pl_module, "network", pl_module)
            parameters = [p for p in pl_module.parameters() if p.requires_grad]
            known = not any(isinstance(p, UninitializedParameter) for p in parameters)
            count = f"{sum(p.numel() for p in parameters):,}" if known else "as yet unknown"
            where = f"{trainer.strategy.root_device.type}, {trainer.precision}"
            processes = f", {trainer.world_size} processes" * (trainer.world_size > 1)
            text = f"{count} parameters to train on {where}{processes}"
            rank_zero_info(f"{type(network).__name__}: {text}")


def headings(trainer: Namespace) -> list[Callback]:
    """A heading in the place of Lightning's table, unless the Trainer's settings ask for that."""
    if trainer.enable_model_summary is not None or "Summary" in str(trainer.callbacks):
        return []
    trainer.enable_model_summary = False
    return [Heading()]
