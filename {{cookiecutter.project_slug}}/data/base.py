"""What the data modules share: splits, loaders, exact resume, and the work on whole batches."""

from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import IterableDataset, Subset

from engine import loaders, sizes
from engine.dealing import Dealing, state_of, take_state
from engine.errors import UserError
from engine.facts import arguments_of
from engine.modules import describe, keep_plain
from engine.samples import TensorSamples
from engine.splits import SPLITS, Rows, check_splits

Made = TypeVar("Made")


class Data(LightningDataModule):
    """Base of the data modules: a subclass has `facts` and implements `load`, and `preparation`
    where batches are not what the system takes. A batch is a tensor, a tuple or a dict of tensors,
    or nested. A subclass may have `save_outputs(outputs, names, folder)`, which gets, batch for batch,
    what `predict_step` gives that is no number or vector (a dict of tensors), the names of the inputs
    and the folder of the table, and writes files there.

    Args:
        batch_size: samples in a batch, on each device; auto: by how many there are. An evaluation
            takes `evaluation_scale` times as many where they are small and in memory.
        num_workers: processes that load samples; auto: none for samples in memory.
        val_fraction: share of the training samples that is kept for validation; auto: 0.1, or up to
            0.2 where that is less than a hundred of them.
        seed: chooses the splits and folds.
        on_device: keep samples that are in memory on the device; auto: on a GPU, if they fit.
        num_folds: cut training and validation samples into this many folds instead.
        fold: the fold to validate on, from 0.
        predict_dir: what to predict, a folder or file; by default the test split.
    """

    test_fraction = 0.2  # where the data set has no test split
    largest_batch = 128  # where it is chosen by the number of samples
    evaluation_scale = 8  # 1: evaluation batches are no larger than training batches
    rows_per_input = 1  # of the predictions: more are the second dimension of an output

    def __init__(
        self,
        batch_size: int | Literal["auto"] = 128,
        num_workers: int | Literal["auto"] = "auto",
        val_fraction: float | Literal["auto"] = 0.1,
        seed: int = 0,
        on_device: bool | Literal["auto"] = "auto",
        num_folds: int | None = None,
        fold: int = 0,
        predict_dir: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size != "auto" and batch_size < 1:
            raise UserError(f"batch_size is {batch_size}: it must be 1 or more, or auto.")
        if num_workers != "auto" and num_workers < 0:
            raise UserError(f"num_workers is {num_workers}: it must be auto, 0 or more.")
        if on_device is True and num_workers not in ("auto", 0):
            raise UserError(
                f"on_device is true and num_workers is {num_workers}: nothing is loaded, use auto."
            )
        check_splits(val_fraction, num_folds, fold)
        self.save_hyperparameters()
        keep_plain(self.hparams)  # a checkpoint holds nothing else
        self.batch_size: int = self.largest_batch if batch_size == "auto" else batch_size
        self.chosen: dict[str, Any] = {}  # what became of settings that were auto
        self.splits: dict[str, Any] = {}  # Subsets of what `load` and `read` give, or data sets
        self.dealing = Dealing(self.test_fraction, self.hparams)  # where splits are to be made
        self.unprepared = False
        self.own_preparation: nn.Module = nn.Identity()  # where the system has no place for it

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values, known before the data is there. A network or system that has an argument of
        that name gets it; a checkpoint holds them, and data that has others does not fit it."""
        return {}

    def adopt(self, facts: dict[str, Any]) -> None:
        """Has `read` take what `predict_dir` names as the data of these facts was taken."""

    def load(self) -> tuple[Any, Rows]:
        """All samples (a map-style data set; its `labels` are stratified, its `ids` or `names` say what
        a sample is known by, or else its content or number), and the rows of the splits it comes with."""
        raise NotImplementedError

    def split(self, samples: Any, rows: Rows) -> Rows:
        """All splits: those that the data set comes with, and what is split off for the others."""
        return self.dealing.complete(samples, rows)

    def read(self, source: Any) -> Any:
        """The raw samples of a file or folder (`predict_dir`) as a data set, with their `names`; and
        of what else a predictor in Python may be given: a list of files, an array, a data frame."""
        raise UserError(f"{type(self).__name__} reads nothing but its own splits: no predict_dir.")

    def preparation(self) -> nn.Module:
        """Maps a whole raw batch, on the device, to what the system takes. It becomes part of the
        system, its checkpoints and exported files. Fitted statistics are its buffers."""
        return nn.Identity()

    def served(self, batch: Any) -> Any:
        """A raw batch as an exported file takes it, if that is not as the loaders give it, such as a
        dict whose keys name the inputs. `preparation` takes it as well."""
        return batch

    def augment(self, batch: Any) -> Any:
        """Varies a raw batch of the training at random, on the device."""
        return batch

    def build(self, kind: type[Made], *args: Any, **kwargs: Any) -> Made:
        """Makes a network or system, with the facts that it has arguments for."""
        known = arguments_of(kind)
        facts = {name: value for name, value in self.facts.items() if name in known}
        return kind(*args, **{**facts, **kwargs})

    @property
    def class_counts(self) -> Tensor:
        """How many training samples each class has, for class weights that balance them."""
        split = self.splits["train"]
        labels = getattr(loaders.samples_of(split), "labels", None)
        if labels is None:
            raise UserError(f"{type(self).__name__} has no labels of classes to balance")
        least = self.facts.get("num_classes", 0)
        return torch.as_tensor(labels)[split.indices].bincount(minlength=least)

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

    @property
    def predict_columns(self) -> dict[str, list]:
        """Further columns of the predictions, by name: a value for each input, in the same order."""
        return {}

    def setup(self, stage: str) -> None:
        if self.reads_other(stage):
            self.splits.pop("predict", None)  # read when a checkpoint has said how
        elif "train" not in self.splits:
            samples, rows = self.load()
            self.splits |= self.dealing.take(samples, rows, self.split)
            if isinstance(samples, TensorSamples) and loaders.wants_on_device(self):
                samples.move_to(self.device)
            sizes.choose(self)
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

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        trainer = self.trainer
        if trainer and trainer.training:
            batch = self.augment(batch)
        system = trainer and trainer.lightning_module
        if self.unprepared and isinstance(system.preparation, nn.Identity):
            raise UserError("How the data is prepared is known to a checkpoint alone: give one.")
        batch = getattr(system, "preparation", self.own_preparation)(batch)
        return trainer.precision_plugin.convert_input(batch) if trainer else batch

    def train_dataloader(self) -> Any:
        return loaders.train_loader(self, self.splits["train"])

    def val_dataloader(self) -> Any:
        return loaders.evaluation_loader(self, self.splits["val"])

    def test_dataloader(self) -> Any:
        return loaders.evaluation_loader(self, self.splits["test"])

    def predict_dataloader(self) -> Any:
        if "predict" not in self.splits:
            samples = self.read(self.hparams.predict_dir)
            self.splits["predict"] = Subset(samples, range(len(samples)))
        return loaders.evaluation_loader(self, self.splits["predict"])

    def state_dict(self) -> dict[str, Any]:
        return state_of(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.predicts_other:  # what comes from elsewhere is read as that of the fit was
            self.adopt(state_dict["facts"])
        else:
            take_state(self, state_dict)
