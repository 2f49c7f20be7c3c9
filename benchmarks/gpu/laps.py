"""The callback with which a fit takes its turns; imported beside a project's own modules."""

from typing import Any

from lightning.pytorch import Callback

LAP: Any = None  # race.Lap


class Laps(Callback):
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        LAP.before_epoch()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        LAP.before_step(batch_idx)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        LAP.after_step(batch_idx)
