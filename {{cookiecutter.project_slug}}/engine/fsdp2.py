"""FSDP2: weights, gradients and optimizer states are sharded over the devices."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from engine.compat import shard_over_all

LISTS = nn.ModuleList, nn.ModuleDict  # they are never called, so nothing would gather their weights


def parts(module: nn.Module) -> Iterator[nn.Module]:
    """Its children, and in the place of lists what is in them."""
    for child in module.children():
        if isinstance(child, LISTS):
            yield from parts(child)
        else:
            yield child


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost sequences: transformer blocks, residual blocks, layers."""
    for child in module.children():
        if isinstance(child, (nn.Sequential, *LISTS)):
            yield from parts(child)
        else:
            yield from blocks(child)


def parallelize(network: nn.Module, mesh: DeviceMesh) -> None:
    """Shards a network in place. To shard it in another way, change this function.

    Each block is gathered when its turn comes and freed after it. Each child of the network
    (backbone and head, encoder and decoder, generator and discriminator) can be called by itself.
    """
    for part in dict.fromkeys([*blocks(network), *parts(network)]):
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh)
    if any(True for _ in network.parameters(recurse=False)):
        fully_shard(network, mesh=mesh)


class FSDP2(ModelParallelStrategy):
    """Shards the `network` of any system over all devices of all machines.

    A checkpoint is a folder with a file for each process; `consolidate.py` makes one file of it.
    Evaluations take either.
    """

    def setup_environment(self) -> None:
        shard_over_all(self)
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        # As the parent, which leaves the sharding to the system: there `network` is to be sharded.
        self.accelerator.setup(trainer)
        system = self.precision_plugin.convert_module(self.lightning_module)
        if not any(isinstance(module, FSDPModule) for module in system.modules()):
            network = getattr(system, "network", system)  # a plain LightningModule has parts alone
            parallelize(network, self.device_mesh["data_parallel"])
        self.model_to_device()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def average_buffers(self) -> None:
        """Averages batch norm's statistics, which each process takes from its own batches."""
        for buffer in self.lightning_module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer.div_(self.world_size))

    on_validation_start = average_buffers

    def lightning_module_state_dict(self) -> dict[str, Any]:
        self.average_buffers()
        return super().lightning_module_state_dict()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(self.broadcast(filepath))
        temporary = path.with_name(f".{path.name}")
        if self.is_global_zero:
            shutil.rmtree(temporary, ignore_errors=True)  # of a save that was killed
        self.barrier()
        super().save_checkpoint(checkpoint, temporary, storage_options)
        self.barrier()
        if self.is_global_zero:
            replace(path, temporary)
        self.barrier()


def replace(path: Path, new: Path) -> None:
    """Puts the folder `new` in the place of `path`, so that a kill leaves one of them whole there.

    Where two names cannot change at once, a kill between the two leaves it beside: `.NAME.old`.
    """
    if path.exists():
        at_fdcwd, rename_exchange = -100, 2
        names = os.fsencode(path), os.fsencode(new)
        swap = getattr(ctypes.CDLL(None), "renameat2", None)  # Linux; not on every file system
        if swap is None or swap(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange):
            old = path.with_name(f".{path.name}.old")
            path.rename(old)
            new.rename(path)
            new = old
        new.unlink() if new.is_file() else shutil.rmtree(new)
    else:
        new.rename(path)
