"""Which process gets which sample, and when: known from seed, epoch and rank alone."""

import os
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import Dataset
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from engine.errors import UserError


class TrainSampler(StatefulDistributedSampler):
    """Shuffles anew in each epoch; continues in the middle of one after a resume.

    A saved position applies only to the epoch that it was saved in.
    """

    def __init__(self, dataset: Dataset, trainer: Trainer) -> None:
        world = trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}
        super().__init__(dataset, seed=int(os.environ.get("PL_GLOBAL_SEED", "0")), **world)
        # Lightning sets the epoch too, but only after workers have begun to load its first batches.
        # Between an epoch's last batch and its end, the next batches are those of the next epoch.
        epochs = trainer.fit_loop.epoch_progress.current
        at_end = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self.set_epoch(epochs.processed + (at_end and epochs.processed < epochs.ready))

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"epoch": self.epoch, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]  # of the fit that goes on, whatever that of this part
        if state_dict["epoch"] == self.epoch:
            super().load_state_dict(state_dict)


def each_once(dataset: Any, batch_size: int, num_replicas: int, rank: int) -> dict[str, Any]:
    """Options of a loader that gives each sample to one process, once: padding would count some twice.
    All processes have as many batches, since one that has more would wait for the others for ever."""
    if len(dataset) < num_replicas:
        raise UserError(f"{len(dataset)} samples are too few for {num_replicas} processes.")
    fewest, rest = divmod(len(dataset), num_replicas)
    while rest and fewest % batch_size == 0:
        batch_size += 1
    sampler = UnrepeatedDistributedSampler(
        dataset, num_replicas=num_replicas, rank=rank, shuffle=False
    )
    return {"batch_size": batch_size, "sampler": sampler}
