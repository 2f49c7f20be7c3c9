"""Which metric says what is best, for the checkpoint and for early stopping."""

from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from engine.errors import UserError


def choose_monitors(config: Namespace) -> None:
    """Puts the system's `monitor` and `mode` where the callbacks have `auto`.

    Raises:
        UserError: whether more or less of another metric is better is not known.
    """
    kind = resolve_name(config.model.class_path)
    own, best = getattr(kind, "monitor", "val/loss"), getattr(kind, "mode", "min")
    for name in ("best_checkpoint", "early_stopping"):
        callback = config[name]
        if callback.monitor == "auto":
            callback.monitor = own
        if callback.mode != "auto":
            continue
        if callback.monitor not in (own, None) and not callback.monitor.endswith("loss"):
            raise UserError(
                f"--{name}.monitor {callback.monitor}: say whether its maximum or minimum is best: "
                f"--{name}.mode max"
            )
        callback.mode = best if callback.monitor == own else "min"


class Monitors(Callback):
    """Refuses a metric that no validation logs before the first epoch, not after it."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Any] = [*trainer.checkpoint_callbacks, *trainer.early_stopping_callbacks]
        for callback in callbacks:
            name = getattr(callback, "monitor", None)
            if str(name).startswith("val/") and name not in trainer.callback_metrics:
                known = ", ".join(key for key in trainer.callback_metrics if key.startswith("val/"))
                raise UserError(
                    f"{type(callback).__name__} looks at {name}, and a validation of "
                    f"{type(pl_module).__name__} logs {known or 'nothing'}. Give that class a "
                    "`monitor` and `mode`, or --best_checkpoint.monitor and --early_stopping.monitor"
                )
