"""What the data modules share: splits, loaders, exact resume, and the work on whole batches."""

import warnings
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning.fabric.utilities.data import suggested_max_num_workers
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, default_collate, default_convert
from torchdata.stateful_dataloader import StatefulDataLoader

from data.preparation import is_plain
from data.samplers import TrainSampler, each_once
from data.samples import TensorSamples, leave_signals
from data.splits import Rows, check_splits, complete_splits
from engine.errors import UserError
from engine.facts import arguments_of

# torchdata 0.11 calls a function that torch deprecates.
warnings.filterwarnings("ignore", message="'set_vital' is deprecated")
# Lightning advises more workers, but a batch in memory is fetched by one indexing operation.
warnings.filterwarnings("ignore", message=".*does not have many workers")

Made = TypeVar("Made")


class Data(LightningDataModule):
    """Base of the data modules: a subclass has `facts` and implements `load`, and `preparation`
    where batches are not what the system takes. A batch is a tensor, a tuple or a dict of tensors,
    or nested.

    Args:
        batch_size: samples in a batch, on each device; an evaluation takes `evaluation_scale` times
            as many where they are small and in memory.
        num_workers: processes that load samples; auto: none for samples in memory.
        val_fraction: share of the training samples that is kept for validation.
        seed: chooses the splits and folds.
        on_device: keep samples that are in memory on the device; auto: on a GPU, if they fit.
        num_folds: cut training and validation samples into this many folds instead.
        fold: the fold to validate on, from 0.
        predict_dir: what to predict, a folder or file; by default the test split.
    """

    test_fraction = 0.2  # where the data set has no test split
    evaluation_scale = 8  # 1: evaluation batches are no larger than training batches

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int | Literal["auto"] = "auto",
        val_fraction: float = 0.1,
        seed: int = 0,
        on_device: bool | Literal["auto"] = "auto",
        num_folds: int | None = None,
        fold: int = 0,
        predict_dir: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it must be 1 or more.")
        if num_workers != "auto" and num_workers < 0:
            raise UserError(f"num_workers is {num_workers}: it must be auto, 0 or more.")
        if on_device is True and num_workers not in ("auto", 0):
            raise UserError(
                f"on_device is true and num_workers is {num_workers}: nothing is loaded, use auto."
            )
        check_splits(val_fraction, num_folds, fold)
        self.save_hyperparameters()
        # A checkpoint holds plain values only.
        for name, value in list(self.hparams.items()):
            if isinstance(value, Path):
                self.hparams[name] = str(value)
            elif not is_plain(value):
                del self.hparams[name]
        self.batch_size = batch_size
        self.splits: dict[str, Any] = {}  # Subsets of what `load` and `read` give
        self.own_preparation: nn.Module = nn.Identity()  # where the system has no place for it

    # --- What a data set says of itself

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values, known before the data is there. A network or system that has an argument of
        that name gets it; a checkpoint holds them, and data that has others does not fit it."""
        return {}

    def adopt(self, facts: dict[str, Any]) -> None:
        """Reads what `predict_dir` names as the data of these facts was read."""

    def load(self) -> tuple[Any, Rows]:
        """All samples (a map-style data set; `labels` of it are stratified), and the rows of the
        splits that the data set comes with."""
        raise NotImplementedError

    def read(self, source: str) -> Any:
        """The raw samples of a file or folder as a data set, with their `names`."""
        raise UserError(f"{type(self).__name__} reads nothing but its own splits: no predict_dir.")

    def preparation(self) -> nn.Module:
        """Maps a whole raw batch, on the device, to what the system takes. It becomes part of the
        system, its checkpoints and exported files. Fitted statistics are its buffers."""
        return nn.Identity()

    def augment(self, batch: Any) -> Any:
        """Varies a raw batch of the training at random, on the device."""
        return batch

    # --- What is made of it

    def build(self, kind: type[Made], *args: Any, **kwargs: Any) -> Made:
        """Makes a network or system, with the facts that it has arguments for."""
        known = arguments_of(kind)
        facts = {name: value for name, value in self.facts.items() if name in known}
        return kind(*args, **{**facts, **kwargs})

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def reads_other(self, stage: str) -> bool:
        """Whether it gives what `predict_dir` names, which is read as the data of the fit was."""
        return stage == "predict" and bool(self.hparams.predict_dir)

    @property
    def predicts_other(self) -> bool:
        return self.reads_other("predict" if self.trainer and self.trainer.predicting else "")

    @property
    def predict_names(self) -> list[str]:
        """What `predict_dataloader` gives, in order: paths of files, or places in the split."""
        split = self.splits["predict"]
        names = getattr(split.dataset, "names", None)
        return [names[i] for i in split.indices] if names else [str(i) for i in range(len(split))]

    def setup(self, stage: str) -> None:
        if self.reads_other(stage):
            samples = self.read(self.hparams.predict_dir)
            self.splits["predict"] = Subset(samples, range(len(samples)))
        elif "train" not in self.splits:
            samples, rows = self.load()
            labels = getattr(samples, "labels", None)
            rows = complete_splits(rows, len(samples), labels, self.test_fraction, self.hparams)
            if isinstance(samples, TensorSamples) and self.wants_on_device():
                samples.move_to(self.device)
            self.splits = {name: Subset(samples, rows[name].tolist()) for name in rows}
            self.splits["predict"] = self.splits["test"]
        system: Any = self.trainer and self.trainer.lightning_module
        if not hasattr(system, "preparation"):  # of another make, or none at all
            self.own_preparation = self.preparation().to(self.device)
        elif stage == "fit" or isinstance(system.preparation, nn.Identity):
            system.preparation = self.preparation()  # else it is that of the checkpoint

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        trainer = self.trainer
        if trainer and trainer.training:
            batch = self.augment(batch)
        system = trainer and trainer.lightning_module
        batch = getattr(system, "preparation", self.own_preparation)(batch)
        return trainer.precision_plugin.convert_input(batch) if trainer else batch

    def wants_on_device(self) -> bool:
        if self.hparams.on_device == "auto":
            return self.device.type in ("cuda", "mps") and self.hparams.num_workers in ("auto", 0)
        return self.hparams.on_device

    def train_dataloader(self) -> Any:
        split = self.splits["train"]
        options = self.loader_options(split)
        if self.trainer is None:
            options["shuffle"] = True
        elif not self.trainer.overfit_batches:
            sampler = TrainSampler(split, self.trainer)
            # A last batch of one sample would break batch norm.
            options |= {"sampler": sampler, "drop_last": len(sampler) >= self.batch_size}
        return StatefulDataLoader(split, **options)

    def val_dataloader(self) -> Any:
        return self.evaluation_dataloader(self.splits["val"])

    def test_dataloader(self) -> Any:
        return self.evaluation_dataloader(self.splits["test"])

    def predict_dataloader(self) -> Any:
        return self.evaluation_dataloader(self.splits["predict"])

    def evaluation_dataloader(self, split: Any) -> DataLoader:
        options = self.loader_options(split)
        samples = split.dataset
        if isinstance(samples, TensorSamples) and not getattr(self.trainer, "fast_dev_run", 0):
            # Each batch has its overhead; that of a million numbers is hidden.
            numbers = sum(tensor[0].numel() for tensor in samples.tensors)
            most = max(1, 2**20 // numbers // self.batch_size)
            options["batch_size"] *= min(self.evaluation_scale, most)
        if world := self.trainer and self.trainer.distributed_sampler_kwargs:
            options |= each_once(split, options["batch_size"], **world)
        return DataLoader(split, **options)

    def workers(self, samples: Dataset) -> int:
        if self.hparams.num_workers != "auto":
            return self.hparams.num_workers
        most = min(8, 1 + suggested_max_num_workers(getattr(self.trainer, "num_devices", 1)))
        return 0 if isinstance(samples, TensorSamples) else most

    def loader_options(self, split: Any) -> dict[str, Any]:
        samples = split.dataset
        workers = self.workers(samples)
        on_device = isinstance(samples, TensorSamples) and not samples.tensors[0].is_cpu
        collate = default_convert if getattr(samples, "gives_batches", False) else default_collate
        return {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.device.type == "cuda" and not on_device,
            "worker_init_fn": leave_signals if workers else None,
            "collate_fn": collate,
            "generator": torch.Generator(),  # else each loader would draw from the global one
        }

    def state_dict(self) -> dict[str, Any]:
        return {"facts": self.facts, "num_workers": self.workers(self.splits["train"].dataset)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.predicts_other:  # what comes from elsewhere is read as that of the fit was
            self.adopt(state_dict["facts"])
            return
        for name, here in self.facts.items():
            if state_dict["facts"].get(name, here) != here:
                checkpoint = (self.trainer and self.trainer.ckpt_path) or "The checkpoint"
                raise UserError(
                    f"{checkpoint} comes from data with {name} {state_dict['facts'][name]}, "
                    f"but this {type(self).__name__} has {name} {here}."
                )
        if self.trainer and self.trainer.state.fn == "fit":
            # The loader's place in the epoch is stored by worker; a worker reads no GPU's memory.
            self.hparams.num_workers = state_dict["num_workers"]
            samples = self.splits["train"].dataset
            if self.hparams.num_workers and isinstance(samples, TensorSamples):
                samples.move_to(torch.device("cpu"))
