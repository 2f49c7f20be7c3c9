"""The loaders of a data module: whole batches, exact resume, each sample once in evaluations."""

import os
import warnings
from typing import Any

import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from lightning.pytorch import Trainer
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
    default_convert,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from engine.compat import epochs_over
from engine.errors import UserError
from engine.samples import RowBatches, TensorSamples, TensorSubset, leave_signals

# torchdata 0.11 calls a function that torch deprecates.
warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
# Lightning advises more workers, but a batch in memory is fetched by one indexing operation.
warnings.filterwarnings("ignore", message=".*does not have many workers")


class TrainSampler(StatefulDistributedSampler):
    """Shuffles anew in each epoch; goes on in the middle of that which a position was saved in."""

    next_yielded: Any  # how many samples of this process come before

    def __init__(self, dataset: Any, trainer: Trainer) -> None:
        world = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        super().__init__(dataset, seed=int(os.environ.get("PL_GLOBAL_SEED", "0")), **world)
        # Lightning sets the epoch too, but only after workers have begun to load its first batches.
        self.set_epoch(epochs_over(trainer))

    def state_dict(self) -> dict[str, Any]:
        own = {"epoch": self.epoch, "seed": self.seed, "num_replicas": self.num_replicas}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]  # of the fit that goes on, whatever that of this part
        if state_dict["epoch"] == self.epoch:
            super().load_state_dict(state_dict)
            before = state_dict.get("num_replicas", self.num_replicas)
            self.next_yielded = self.next_yielded * before // self.num_replicas


def each_once(dataset: Any, batch_size: int, num_replicas: int, rank: int) -> dict[str, Any]:
    """Options of a loader that gives each sample to one process, once: padding would count some
    twice. All processes have as many batches, since one with more would wait for ever."""
    if len(dataset) < num_replicas:
        raise UserError(f"{len(dataset)} samples are too few for {num_replicas} processes.")
    fewest, rest = divmod(len(dataset), num_replicas)
    while rest and fewest % batch_size == 0:
        batch_size += 1
    sampler = UnrepeatedDistributedSampler(dataset, num_replicas, rank, shuffle=False)
    return {"batch_size": batch_size, "sampler": sampler}


def samples_of(split: Any) -> Any:
    """The data set that a split is part of, or is."""
    return split.dataset if isinstance(split, Subset) else split


def train_loader(data: Any, split: Any) -> Any:
    options = loader_options(data, split)
    if isinstance(split, IterableDataset):
        return DataLoader(split, **options)
    if data.trainer is None:
        options["shuffle"] = True
    elif not data.trainer.overfit_batches:
        sampler = TrainSampler(split, data.trainer)
        # A last batch of one sample would break batch norm.
        options |= {"sampler": sampler, "drop_last": len(sampler) >= data.batch_size}
        return by_rows(StatefulDataLoader, split, **options)
    return StatefulDataLoader(split, **options)


def evaluation_loader(data: Any, split: Any) -> DataLoader:
    options, samples = loader_options(data, split), samples_of(split)
    if isinstance(split, IterableDataset):
        return DataLoader(split, **options)
    if isinstance(samples, TensorSamples) and not getattr(data.trainer, "fast_dev_run", 0):
        # Each batch has its overhead; that of a million numbers is hidden.
        numbers = sum(tensor[0].numel() for tensor in samples.tensors)
        most = max(1, 2**20 // numbers // data.batch_size)
        options["batch_size"] *= min(data.evaluation_scale, most)
    if world := data.trainer and data.trainer.distributed_sampler_kwargs:
        options |= each_once(split, options["batch_size"], **world)
    if data.trainer and data.trainer.predicting:  # Lightning hands out its indices, as lists
        return DataLoader(split, **options)
    return by_rows(DataLoader, split, **{"sampler": SequentialSampler(split), **options})


def by_rows(
    kind: type[DataLoader],
    split: Any,
    sampler: Any,
    batch_size: int,
    drop_last: bool = False,
    **options: Any,
) -> DataLoader:
    """A loader of this split, which fetches samples in memory by tensors of row numbers."""
    in_memory = isinstance(split, Subset) and isinstance(split.dataset, TensorSamples)
    if not in_memory or options["num_workers"]:
        return kind(split, batch_size, sampler=sampler, drop_last=drop_last, **options)
    batches = RowBatches(sampler, batch_size, drop_last)
    loader = kind(TensorSubset(split), batch_sampler=batches, **options)
    # Else it shows defaults: Lightning would replace such a sampler, and callbacks read the size.
    vars(loader).update(sampler=sampler, batch_size=batch_size)
    return loader


def workers(data: Any, samples: Any) -> int:
    """How many processes load these samples."""
    if data.hparams.num_workers != "auto":
        return data.hparams.num_workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 8
    most = min(8, cores, 1 + suggested_max_num_workers(getattr(data.trainer, "num_devices", 1)))
    # Each worker would give all of an iterable data set, unless that shares itself out.
    return 0 if isinstance(samples, TensorSamples | IterableDataset) else most


def wants_on_device(data: Any) -> bool:
    """Whether samples in memory are to be kept on the device."""
    if data.hparams.on_device == "auto":
        return data.device.type in ("cuda", "mps") and data.hparams.num_workers in ("auto", 0)
    return data.hparams.on_device


def loader_options(data: Any, split: Any) -> dict[str, Any]:
    samples = samples_of(split)
    num_workers = workers(data, samples)
    if isinstance(samples, IterableDataset):
        shares = max(num_workers, 1) * (data.trainer.world_size if data.trainer else 1)
        if shares > 1:
            rank_zero_warn(
                f"{type(samples).__name__} is iterable: each of {shares} processes that read it "
                "gets every sample, unless it gives each its own share."
            )
    on_device = isinstance(samples, TensorSamples) and not samples.tensors[0].is_cpu
    collate = default_convert if getattr(samples, "gives_batches", False) else default_collate
    return {
        "batch_size": data.batch_size,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": data.device.type == "cuda" and not on_device,
        "worker_init_fn": leave_signals if num_workers else None,
        "collate_fn": getattr(data, "collate_fn", None) or collate,
        "generator": torch.Generator(),  # else each loader would draw from the global one
    }
