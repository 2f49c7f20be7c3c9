"""What every data module does by itself: deals its samples to splits, makes loaders, prepares
batches, and has a fit go on exactly. What a data set says is in data/base.py."""

from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.plugins import Precision
from torch import nn
from torch.utils.data import IterableDataset, Subset

from engine import loaders, sizes
from engine.errors import UserError
from engine.facts import arguments_of, same, unlike
from engine.modules import add_fixed, describe, keep_plain
from engine.samples import TensorSamples
from engine.splits import SPLITS, Dealing, Record, Rows

Made = TypeVar("Made")


class DataModule(LightningDataModule):
    facts: Any  # these are of data.base.Data
    adopt: Any
    keep: Any
    load: Any
    read: Any
    preparation: Any
    augment: Any
    test_fraction: float
    batch_size: int

    def __init__(self) -> None:
        super().__init__()
        self.chosen: dict[str, Any] = {}  # what became of settings that were auto
        self.splits: dict[str, Any] = {}  # Subsets of what `load` and `read` give, or data sets
        self.unprepared = False
        self.own_preparation: nn.Module = nn.Identity()  # where the system has no place for it

    def take_settings(self, frame: Any) -> None:
        """Checks the settings and leaves in `hparams` what a checkpoint may hold of them; `frame`
        is that of the `__init__` of the class that they are of."""
        self.fixed = add_fixed(self.hparams, frame)
        sizes.check_settings(self.hparams)
        keep_plain(self.hparams)
        self.dealing = Dealing(self.test_fraction, self.hparams)  # of its samples to splits

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
        return stage == "predict" and self.hparams.predict_dir is not None

    @property
    def predicts_other(self) -> bool:
        return self.reads_other("predict" if self.trainer and self.trainer.predicting else "")

    @property
    def predict_names(self) -> list[str]:
        """What `predict_dataloader` gives, in order: paths of files, or places in the split."""
        split = self.splits["predict"]
        if names := getattr(loaders.samples_of(split), "names", None):
            return [names[i] for i in split.indices]
        return [] if isinstance(split, IterableDataset) else [str(i) for i in range(len(split))]

    def setup(self, stage: str) -> None:
        if self.trainer:
            keep_floats(self.trainer.precision_plugin)
        if self.reads_other(stage):
            self.splits.pop("predict", None)  # read when a checkpoint has said how
        elif "train" not in self.splits:
            samples, rows = self.load()
            self.splits |= self.dealing.take(samples, rows, self.split)
            if isinstance(samples, TensorSamples) and loaders.wants_on_device(self):
                samples.move_to(self.device)
            sizes.choose(self, has_val="val" in rows)
        system: Any = self.trainer and self.trainer.lightning_module
        if not hasattr(system, "preparation"):  # of another make, or none at all
            self.own_preparation = self.preparation().to(self.device)
        elif stage == "fit" or isinstance(system.preparation, nn.Identity):
            try:
                system.preparation = self.preparation()  # else it is that of the checkpoint
                describe(system.preparation)  # can a checkpoint hold it? Better now than at a save
            except KeyError as error:
                if "train" in self.splits or error.args[0] not in SPLITS:
                    raise
                self.unprepared = True  # fitted on a split that is not here: the checkpoint has it

    def split(self, samples: Any, rows: Rows) -> Rows:
        """All splits: those that the data set comes with, and what is split off for the others."""
        return self.dealing.complete(samples, rows)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        trainer = self.trainer
        if trainer and trainer.training:
            batch = self.augment(batch)
        system = trainer and trainer.lightning_module
        if self.unprepared and isinstance(system.preparation, nn.Identity):
            raise UserError("How the data is prepared is known to a checkpoint alone: give one.")
        batch = getattr(system, "preparation", self.own_preparation)(batch)
        if not trainer:
            return batch
        plugin = trainer.precision_plugin
        if hasattr(system, "preparation"):
            return plugin.convert_input(batch)
        return type(plugin).convert_input(plugin, batch)  # whatever `keep_floats` has done

    def train_dataloader(self) -> Any:
        return loaders.train_loader(self, self.splits["train"])

    def val_dataloader(self) -> Any:
        return loaders.evaluation_loader(self, self.splits["val"])

    def test_dataloader(self) -> Any:
        return loaders.evaluation_loader(self, self.splits["test"])

    def predict_dataloader(self) -> Any:
        if "predict" not in self.splits:
            self.read_inputs()
        preparation = getattr(self.trainer and self.trainer.lightning_module, "preparation", None)
        if self.predicts_other and preparation:
            source = self.hparams.predict_dir
            self.tell_unlike(preparation, source if isinstance(source, str) else "The input")
        return loaders.evaluation_loader(self, self.splits["predict"])

    def tell_unlike(self, preparation: nn.Module, source: str) -> None:
        """Warns if what is predicted is most unlike the data that `preparation` was fitted on."""

    def read_inputs(self) -> None:
        samples = self.read(self.hparams.predict_dir)
        if not isinstance(samples, IterableDataset):
            if not len(samples):
                raise UserError(f"There is nothing to predict in {self.hparams.predict_dir!r:.80}.")
            samples = Subset(samples, range(len(samples)))
        self.splits["predict"] = samples

    def go_on_with(self, facts: dict[str, Any], checkpoint: Any, adopted: bool = False) -> None:
        """Keeps what can be kept of the facts of a checkpoint. Raises a UserError if the data has
        others, or if they will be adopted, settings that are others."""
        if not (adopted or "train" in self.splits):
            self.keep(facts)
        for name, here in (self.hparams if adopted else self.facts).items():
            if here is not None and not same(there := facts.get(name, here), here):
                raise UserError(
                    f"{checkpoint} comes from data with {name} {unlike(there, here)}, "
                    f"but this {type(self).__name__} has {name} {unlike(here, there)}."
                )

    def state_dict(self) -> dict[str, Any]:
        num_workers = loaders.workers(self, loaders.samples_of(self.splits["train"]))
        state: dict[str, Any] = {"facts": self.facts, "num_workers": num_workers}
        if record := self.dealing.record:
            state["splits"] = {"keys": record.keys, "settings": record.settings}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the splits of a checkpoint. Raises a UserError if the data has other facts,
        or if what would be measured was trained on."""
        if self.predicts_other:  # what comes from elsewhere is read as that of the fit was
            self.adopt(state_dict["facts"])
            self.read_inputs()
            return
        checkpoint = (self.trainer and self.trainer.ckpt_path) or "The checkpoint"
        self.go_on_with(state_dict["facts"], checkpoint)
        stage = self.trainer.state.fn if self.trainer else None
        if "splits" in state_dict:
            self.splits |= self.dealing.go_on(Record(**state_dict["splits"]), stage, checkpoint)
        if stage == "fit":
            # The loader's place in the epoch is stored by worker; a worker reads no GPU's memory.
            self.hparams.num_workers = state_dict["num_workers"]
            samples = loaders.samples_of(self.splits["train"])
            if self.hparams.num_workers and isinstance(samples, TensorSamples):
                samples.move_to(torch.device("cpu"))


def keep_floats(precision: Precision) -> None:
    """Has Lightning leave batches alone where it would make floats of 16 bits of them, before their
    preparation: a price is rounded, or infinite. The system converts what its network takes."""
    if precision.convert_input(torch.ones(1)).itemsize < 4:
        precision.convert_input = nn.Identity()  # type: ignore[method-assign]
