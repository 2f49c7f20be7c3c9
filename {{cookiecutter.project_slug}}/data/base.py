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
    """Base of the data modules. A subclass has `facts` and implements `load`, and `preparation`
    where the system takes other batches. A batch is a tensor, a tuple or dict of tensors, or
    nested. It may write files in `save_outputs(outputs, names, folder)`: it gets, for each batch,
    what does not fit into the table of predictions (a dict of tensors), the inputs' names, and the
    folder.

    Args:
        batch_size: samples in a batch, on each device; auto: chosen by their number. Evaluations of
            small samples in memory take `evaluation_scale` times as many.
        num_workers: processes that load samples; auto: none for samples in memory.
        val_fraction: share of the training samples that is kept for validation; auto: 0.1, or up to
            0.2 where that is less than a hundred of them.
        seed: of the random splits and folds.
        on_device: keep samples that are in memory on the device; auto: on a GPU, if they fit.
        num_folds: cut training and validation samples into so many folds instead.
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
        """Takes a checkpoint's facts before `read`: files are read as those of the fit were."""

    def keep(self, facts: dict[str, Any]) -> None:
        """Takes the facts of a checkpoint before `load`: what the fit found in its training samples
        (such as categories) stays, though there are other samples now."""

    def load(self) -> tuple[Any, Rows]:
        """All samples (a map-style data set) and the rows of the splits that they come with, or {}.
        `labels` are stratified; `ids` or `names` identify samples, or else content or number."""
        raise NotImplementedError

    def read(self, source: Any) -> Any:
        """The raw samples, as a data set with `names`, of a file or folder (`predict_dir`); in
        Python also of a list of files, an array or a data frame, as a subclass likes."""
        raise UserError(f"{type(self).__name__} reads nothing but its own splits: no predict_dir.")

    def preparation(self) -> nn.Module:
        """Maps a whole raw batch, on the device, to what the system takes. It becomes part of the
        system, its checkpoints and exported files. Fitted statistics are its buffers."""
        return nn.Identity()

    def export_batch(self, batch: Any) -> Any:
        """A raw batch as an exported file takes it, if other than the loaders give it: a dict, say,
        whose keys name the inputs. `preparation` must take it, too."""
        return batch

    def augment(self, batch: Any) -> Any:
        """Varies a raw training batch at random, on the device."""
        return batch

    @property
    def predict_columns(self) -> dict[str, list]:
        """Further columns of the predictions, by name: a value for each input, in their order."""
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
