"""What the data modules share: what a data set says, and the settings of all of them."""

from inspect import currentframe
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.data_module import DataModule
from engine.errors import UserError
from engine.loaders import samples_of
from engine.splits import Rows


class Data(DataModule):
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
        batch_size: int | Literal["auto"] = "auto",
        num_workers: int | Literal["auto"] = "auto",
        val_fraction: float | Literal["auto"] = "auto",
        seed: int = 0,
        on_device: bool | Literal["auto"] = "auto",
        num_folds: int | None = None,
        fold: int = 0,
        predict_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # `self.hparams`, with those of the subclass
        self.take_settings(currentframe())
        self.batch_size = self.largest_batch if batch_size == "auto" else batch_size

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values, known before the data is there. A network or system that has an argument of
        that name gets it; a checkpoint holds them, and data that has others does not fit it."""
        return {}

    def adopt(self, facts: dict[str, Any]) -> None:
        """Has `read` take what `predict_dir` names as the data of these facts was taken."""

    def keep(self, facts: dict[str, Any]) -> None:
        """Has `load` hold on to what the fit of a checkpoint, which has these facts, found in its
        training samples, though there are other samples now."""

    def load(self) -> tuple[Any, Rows]:
        """All samples (a map-style data set; its `labels` are stratified, its `ids` or `names` say what
        a sample is known by, or else its content or number), and the rows of the splits it comes with.
        """
        raise NotImplementedError

    def read(self, source: Any) -> Any:
        """The raw samples of a file or folder (`predict_dir`) as a data set, with their `names`; and
        of what else a predictor in Python may be given: a list of files, an array, a data frame."""
        raise UserError(f"{type(self).__name__} reads nothing but its own splits: no predict_dir.")

    def preparation(self) -> nn.Module:
        """Maps a whole raw batch, on the device, to what the system takes. It becomes part of the
        system, its checkpoints and exported files. Fitted statistics are its buffers."""
        return nn.Identity()

    def export_batch(self, batch: Any) -> Any:
        """A raw batch as an exported file takes it, if that is not as the loaders give it, such as a
        dict whose keys name the inputs. `preparation` takes it as well."""
        return batch

    def augment(self, batch: Any) -> Any:
        """Varies a raw batch of the training at random, on the device."""
        return batch

    @property
    def predict_columns(self) -> dict[str, list]:
        """Further columns of the predictions, by name: a value for each input, in the same order."""
        return {}

    @property
    def class_counts(self) -> Tensor:
        """How many training samples each class has, for class weights that balance them."""
        split = self.splits["train"]
        labels = getattr(samples_of(split), "labels", None)
        if labels is None:
            raise UserError(f"{type(self).__name__} has no labels of classes to balance")
        least = self.facts.get("num_classes", 0)
        return torch.as_tensor(labels)[split.indices].bincount(minlength=least)
