"""Which metric says what is best, for the checkpoint and for early stopping."""

from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer

from engine.errors import UserError


def choose_monitors(config: Namespace) -> None:
    """Puts the system's `monitor` and `mode` where the callbacks have `auto`."""
    for name in ("best_checkpoint", "early_stopping"):
        given, callback = f"--{name}.monitor {config[name].monitor}", config[name]
        callback.monitor, callback.mode = monitored(
            config.model.class_path, callback.monitor, callback.mode, given
        )


def monitored(system: str, monitor: str | None, mode: str, given: str) -> tuple[str | None, str]:
    """The metric that says which epoch is best, and whether its `max` or `min` is.

    Args:
        system: class path.
        monitor: a metric; auto: that of the system.
        mode: auto: the system's, or of another loss `min`.
        given: how the metric was given, for an error.

    Raises:
        UserError: whether more or less of the metric is better is not known.
    """
    kind = resolve_name(system)
    own, best = getattr(kind, "monitor", "val/loss"), getattr(kind, "mode", "min")
    monitor = own if monitor == "auto" else monitor
    if mode != "auto":
        return monitor, mode
    if monitor not in (own, None) and not monitor.endswith("loss"):
        key = given.split()[0].replace("monitor", "mode")
        raise UserError(f"{given}: say whether its maximum or minimum is best: {key} max")
    return monitor, best if monitor == own else "min"


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
