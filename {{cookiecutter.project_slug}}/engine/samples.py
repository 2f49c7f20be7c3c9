"""Samples in memory, fetched a batch at a time."""

import logging
import signal
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Subset

from engine.errors import UserError

log = logging.getLogger("lightning.pytorch")  # of every process: each has a device of its own


class TensorSamples(Dataset):
    """Samples as a tensor, or a tuple or dict of tensors, each with a row for every sample.

    Args:
        samples: what a batch has, for all samples.
        labels: class indices (N,), if splits shall have the same share of every class.
        names: what the samples are called in predictions; by default their numbers.
        ids: what a sample is known by, if its name may change; without both, its content.
        keys: (N,) of the content, where the tensors follow from more than that; see sample_keys.py.
    """

    gives_batches = True

    def __init__(
        self,
        samples: Any,
        labels: Tensor | None = None,
        names: list[str] | None = None,
        ids: list[str] | None = None,
        keys: Tensor | None = None,
    ) -> None:
        self.samples, self.labels, self.names, self.ids = samples, labels, names, ids
        self.keys = keys

    @property
    def tensors(self) -> list[Tensor]:
        found: list[Tensor] = []
        apply_to_collection(self.samples, Tensor, found.append)
        return found

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> Any:
        return apply_to_collection(self.samples, Tensor, lambda tensor: tensor[index])

    def __getitems__(self, indices: list[int] | Tensor) -> Any:
        rows = row_numbers(indices, self.tensors[0].device)
        return apply_to_collection(self.samples, Tensor, lambda t: t.index_select(0, rows))

    def move_to(self, device: torch.device) -> None:
        """Puts all samples into the memory of the device; if it is short, says so and does not."""
        size, free = sum(tensor.nbytes for tensor in self.tensors), free_memory(device)
        if size > free / 2:
            needed = f"{size / 1e9:.1f} GB"
            log.info(f"{device} has no room for {needed}: the data stays in main memory.")
        else:
            self.samples = apply_to_collection(self.samples, Tensor, lambda t: t.to(device))


class TensorSubset(Subset):
    """A split of `TensorSamples` whose batches are fetched by a tensor of row numbers."""

    dataset: TensorSamples

    def __init__(self, split: Any) -> None:
        super().__init__(split.dataset, split.indices)
        self.rows = torch.tensor(split.indices, device=split.dataset.tensors[0].device)

    def __getitems__(self, indices: Any) -> Any:
        rows = self.rows.index_select(0, row_numbers(indices, self.rows.device))
        return self.dataset.__getitems__(rows)


class RowBatches(BatchSampler):
    """Cuts batches, as tensors of row numbers, from those of a whole epoch: to make a list of
    numbers for each takes longer than to fetch it."""

    def __iter__(self) -> Any:
        return RowIterator(self)


class RowIterator:
    """The batches of an epoch; a checkpoint keeps its place as torchdata's batch samplers do."""

    def __init__(self, batches: RowBatches) -> None:
        self.sampler: Any = batches.sampler
        self.batch_size, self.drop_last = batches.batch_size, batches.drop_last
        self.rows: Tensor | None = None
        self.place = 0  # in the rows

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Tensor:
        if self.rows is None:
            pinned = torch.cuda.is_initialized()
            self.rows = torch.tensor([*self.sampler], dtype=torch.int64, pin_memory=pinned)
        batch = self.rows[self.place : self.place + self.batch_size]
        if not len(batch) or self.drop_last and len(batch) < self.batch_size:
            raise StopIteration
        self.place += len(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        state = self.sampler.state_dict()
        if self.rows is not None:  # the sampler has given all of them
            state["yielded"] -= len(self.rows) - self.place
        return {"samples_yielded": state["yielded"], "sampler_state": state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state_dict["sampler_state"])
        self.rows, self.place = None, 0


def row_numbers(indices: list[int] | Tensor, device: torch.device) -> Tensor:
    """Row numbers on the device, without waiting for it."""
    if not isinstance(indices, Tensor):
        indices = torch.tensor(indices, pin_memory=device.type == "cuda")
    return indices.to(device, non_blocking=True)


def samples_like(sample: Any, inputs: Any, name: str) -> TensorSamples:
    """Samples as that one of the data set of this name, of inputs (N, ...) or one: the first part
    of each; what else a sample has becomes -1. Raises a UserError if they are of another kind."""
    first, *others = sample if isinstance(sample, tuple | list) else [sample]
    try:
        example, given = torch.as_tensor(first), torch.as_tensor(inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"What {name} gives cannot be made of {inputs!r:.80}: give `predict`, or a predictor, "
            "a data set of such samples"
        ) from error
    given = given[None] if given.shape == example.shape else given
    kinds = given.is_floating_point(), example.is_floating_point()
    if given.shape[1:] != example.shape or kinds[0] != kinds[1]:
        raise UserError(
            f"{given.dtype} of shape {tuple(given.shape)} where a sample has {example.dtype} of "
            f"shape {tuple(example.shape)}"
        )
    given, unknown = given.to(example.dtype), torch.full((len(given),), -1)
    return TensorSamples((given, *[unknown] * len(others)) if others else given)


def free_memory(device: torch.device) -> float:
    """Bytes that a GPU has left; what has no memory of its own, or does not tell, has enough."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return float("inf")


def leave_signals(worker: int) -> None:
    """Leaves Ctrl-C and the like to the process that a worker loads for: to stop with a save it may
    need another batch. If that process does not end its workers, SIGTERM does after a while."""
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(20))
