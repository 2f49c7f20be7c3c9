"""Base of the data modules: the methods that a subclass implements, and the settings of all."""

from inspect import currentframe
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.data_module import DataModule
from engine.errors import UserError
from engine.loaders import samples_of
from engine.splits import Rows


class Data(DataModule):
    """Base of the data modules. A subclass implements `load` and, as needed, `facts`, `read`,
    `preparation` and `augment`. A batch is a tensor, a tuple or dict of tensors, or nested. To
    write predictions that fit into no table, such as masks, it defines `save_outputs(outputs,
    names, folder)`, which gets for each batch a dict of tensors, the names of its inputs, and where
    to write.

    Args:
        batch_size: samples in a batch, on each device; auto: by the number of samples. Evaluations
            of small samples in memory take `evaluation_scale` times as many.
        num_workers: processes that load samples; auto: none for samples in memory.
        val_fraction: share of the training samples that is split off for validation; auto: 0.1, or
            up to 0.2 where that is less than a hundred of them.
        seed: of the random splits and folds.
        on_device: keep samples that are in memory on the device; auto: on a GPU, if they fit.
        num_folds: for cross-validation: split training and validation samples into so many folds.
        fold: the fold to validate on, from 0.
        predict_dir: a folder or file to predict; by default the test split.
    """

    test_fraction = 0.2  # what is split off for the test, where the data set has no test split
    largest_batch = 128  # of batch_size auto
    evaluation_scale = 8  # 1: evaluation batches are as large as training batches
    rows_per_input = 0  # in the table of predictions: the second dimension of outputs; 0: one row

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
        self.save_hyperparameters()  # in `self.hparams`, with the subclass's own
        self.take_settings(currentframe())  # checks them, also those that a subclass has fixed
        self.batch_size = self.largest_batch if batch_size == "auto" else batch_size

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values such as `num_classes`, known before `load`. Networks and systems get them as
        arguments, by name. A checkpoint holds them, and refuses data that has others."""
        return {}

    def adopt(self, facts: dict[str, Any]) -> None:
        """Takes over a checkpoint's facts before `read`, so that files are read as in the fit."""

    def keep(self, facts: dict[str, Any]) -> None:
        """Takes over a checkpoint's facts before `load`, so that what the fit found in its training
        samples, such as categories, stays when there are other samples."""

    def load(self) -> tuple[Any, Rows]:
        """All samples, as a map-style data set, and by split the rows (N,) that it comes with (or
        {}: then they are split off, with the same share of each class if the data set has `labels`
        (N,)). `ids` or `names` identify samples, or else their content or number."""
        raise NotImplementedError

    def read(self, source: Any) -> Any:
        """The raw samples of a file or folder (`predict_dir`), as a data set with `names`; from
        Python a subclass may also take a list of files, an array or a data frame."""
        raise UserError(f"{type(self).__name__} reads nothing but its own splits: no predict_dir.")

    def preparation(self) -> nn.Module:
        """Maps a whole raw batch, on the device, to what the system takes. It becomes part of the
        system, its checkpoints and exported files. Statistics of the data are its buffers."""
        return nn.Identity()

    def export_batch(self, batch: Any) -> Any:
        """A raw batch as an exported file takes it, such as a dict whose keys name its inputs; by
        default as the loaders give it. `preparation` must take it, too."""
        return batch

    def augment(self, batch: Any) -> Any:
        """Varies a raw training batch at random, on the device."""
        return batch

    @property
    def predict_columns(self) -> dict[str, list]:
        """More columns of the table of predictions, by name: a value for each input, in order."""
        return {}

    @property
    def class_counts(self) -> Tensor:
        """How many training samples each class has (num_classes,), for balanced class weights."""
        split = self.splits["train"]
        labels = getattr(samples_of(split), "labels", None)
        if labels is None:
            raise UserError(f"{type(self).__name__} has no labels of classes to balance")
        labels = torch.as_tensor(labels)[split.indices]
        return labels[labels >= 0].bincount(minlength=self.facts.get("num_classes", 0))
