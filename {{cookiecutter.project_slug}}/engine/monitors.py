"""Which metric says what is best, for checkpoint and early stopping."""

import sys
from math import inf
from operator import itemgetter
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from torch import Tensor

from engine.errors import UserError
from engine.recipe import FEW


def choose_monitors(config: Namespace) -> None:
    """Puts the system's `monitor` and `mode` where the callbacks have `auto`. Raises a UserError if
    whether more or less of another metric is better is not known."""
    kind = resolve_name(config.model.class_path)
    own, best = getattr(kind, "monitor", "val/loss"), getattr(kind, "mode", "min")
    for name in ("best_checkpoint", "early_stopping"):
        callback = config[name]
        if callback.monitor == "auto":
            callback.monitor = own
        if callback.mode != "auto":
            continue
        if callback.monitor not in (own, None) and not callback.monitor.endswith("loss"):
            which = f"{name}.monitor is {callback.monitor}"
            raise UserError(f"{which}: say whether more is better: --{name}.mode max")
        callback.mode = best if callback.monitor == own else "min"


def check_place(callback: callbacks.ModelCheckpoint) -> None:
    """Raises a UserError if a callback that knows no score so far would overwrite the best."""
    path = Path(callback.dirpath or "", f"{callback.filename}.ckpt")
    if path.exists():
        raise UserError(
            f"{path} is not the best by {callback.monitor} with these settings: give another name "
            "as well, such as --best_checkpoint.filename best_by_it"
        )


def move(state: dict[str, Any], callback: Any) -> None:
    """Tells the state of a ModelCheckpoint where its folder is now, and how many it is to keep:
    of another folder it would forget the best score, and the worst of those that it keeps."""
    folder = state["dirpath"] = callback.dirpath
    for key in ("best_model_path", "last_model_path"):
        if state[key]:
            state[key] = str(Path(folder, Path(state[key]).name))
    best = sorted(state["best_k_models"].items(), key=itemgetter(1), reverse=callback.mode == "max")
    kept = best[: None if callback.save_top_k == -1 else callback.save_top_k]
    state["best_k_models"] = {str(Path(folder, Path(k).name)): score for k, score in kept}
    state["kth_best_model_path"] = next(reversed(state["best_k_models"]), "")


class Monitors(Callback):
    """Refuses a metric that no validation logs before the first epoch, not after it."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        looking: list[Any] = [*trainer.checkpoint_callbacks, *trainer.early_stopping_callbacks]
        for callback in looking:
            name = getattr(callback, "monitor", None)
            if str(name).startswith("val/") and name not in trainer.callback_metrics:
                known = ", ".join(key for key in trainer.callback_metrics if key.startswith("val/"))
                raise UserError(
                    f"{type(callback).__name__} looks at {name}, and a validation of "
                    f"{type(pl_module).__name__} logs {known or 'nothing'}. Give that class a "
                    "`monitor` and `mode`, or --best_checkpoint.monitor, --early_stopping.monitor"
                )


class BestCheckpoint(callbacks.ModelCheckpoint):
    """Takes the later of epochs that are alike, if validation samples are few: of their scores
    chance finds the best, and the learning rate falls to the end of a fit. Alike are two whose
    scores differ by less than that part of one sample which the system names in `tolerances`."""

    lowest = inf  # of all scores, also of those that were left; of `max` times -1

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        is_best = super().check_monitor_top_k(trainer, current)
        system = trainer.lightning_module
        tolerance = getattr(system, "tolerances", {}).get(self.monitor)
        if current is None or tolerance is None or self.save_top_k != 1:
            return is_best
        sign, kept = 1 if self.mode == "min" else -1, self.best_model_score
        scores = [sign * one.item() for one in (current, kept) if one is not None]
        self.lowest = min(self.lowest, *scores)
        count = system.sizes[self.monitor].item()
        return is_best or count < FEW and scores[0] < self.lowest + tolerance / count

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lowest": self.lowest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.lowest = state_dict.get("lowest", inf)


class PatientStopping(callbacks.EarlyStopping):
    """Waits for ever unless `patience` is given: where the learning rate falls to zero at the end
    of the fit, the best epochs are the last ones.

    Args:
        patience: stop after so many validations without a better score.
    """

    def __init__(self, patience: int | None = None, **kwargs: Any) -> None:
        super().__init__(patience=sys.maxsize if patience is None else patience, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A fit that goes on may be asked for another patience.
        super().load_state_dict(state_dict | {"patience": self.patience})
