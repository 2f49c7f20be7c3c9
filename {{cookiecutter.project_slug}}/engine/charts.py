"""Charts of a test, whatever they show: one that cannot be drawn says so once, and ends no test."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn


class Charts(Callback):
    """Base of the charts. A subclass takes each batch in ``add``, draws in ``on_test_epoch_end``
    unless ``stands_aside``, and says in ``written`` what is to be printed."""

    name = "charts"
    written = ""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stands_aside = False

    def add(self, trainer: Trainer, batch: Any, outputs: Any, batch_idx: int) -> None:
        """Takes a batch and the outputs of `predict_step` for it."""
        raise NotImplementedError

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *index: int
    ) -> None:
        number, *loader = index
        if self.stands_aside or any(loader):
            return
        try:
            # By the strategy: in its precision, and where weights are sharded with all of them.
            self.add(trainer, batch, trainer.strategy.predict_step(batch, number), number)
        except Exception as error:
            rank_zero_warn(f"No {self.name}: {error!r}")
            self.stands_aside = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.written:
            print(self.written)  # here, since all callbacks are through: the progress bar has ended
        self.written = ""
