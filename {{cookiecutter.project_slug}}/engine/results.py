"""What a fit or an evaluation finds, in figures that mean something."""

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from engine.files import relative
from engine.last_checkpoint import command_line
from engine.records import config_of, read_record, root_of
from engine.runs import read_checkpoint

# Where a logger shows its curves.
CURVES = {
    "TensorBoard": "tensorboard --logdir {root}",
    "AppendingCSVLogger": "{run}/metrics.csv",
    "WandbLogger": "wandb sync {run}/wandb/offline-run-*",
    "MLFlowLogger": "mlflow ui --backend-store-uri sqlite:///{root}/mlflow.db",
    "CometLogger": "comet upload {run}/comet_*/*.zip",
}


def figures(trainer: Trainer) -> dict[str, list[float]]:
    """The newest metrics by their names; of a share of samples also how many there were."""
    system: Any = trainer.lightning_module
    sums, sizes = getattr(system, "sums", {}), getattr(system, "sizes", {})
    found = {}
    for name, value in sorted(trainer.callback_metrics.items()):
        is_share = name in sizes and not sums[name].is_floating_point() and 0 <= value <= 1
        found[name] = [value.item(), sizes[name].item()] if is_share else [value.item()]
    return found


def told(value: float, size: float = 0) -> str:
    """A figure, rounded; a share with its count."""
    return f"{value:.4g}" + (f" ({round(value * size)} of {size:.0f})" if size else "")


def tell_metrics(trainer: Trainer) -> None:
    """Prints the metrics of the evaluation that has ended."""
    if trainer.is_global_zero:
        found = figures(trainer)
        width = max(map(len, found), default=0)
        for name, values in found.items():
            print(f"{name:{width}}  {told(*values)}")


def why_it_ended(trainer: Trainer, trains: bool) -> str:
    if not trains:
        reason = "--trainer.max_epochs (or max_steps) allows no more"
        if trainer.should_stop:
            reason = "a callback, or trainer.max_time, allows no more"
        elif not trainer.limit_train_batches:
            reason = "trainer.limit_train_batches is 0, also where a finder stops"
        steps = f"{trainer.current_epoch} epochs, {trainer.global_step} steps were done"
        return f"before its first step: {steps}, and {reason}"
    for stopping in trainer.early_stopping_callbacks:
        if stopping.stopped_epoch and trainer.should_stop:  # else it was before this fit went on
            reason = stopping.stopping_reason_message
            return f"early, after epoch {stopping.stopped_epoch}: {reason}"
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"after {trainer.global_step} of {trainer.max_steps} steps"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        epochs = f"{trainer.current_epoch} of {trainer.max_epochs} epochs"
        return f"after {epochs}, {trainer.global_step} steps"
    return f"in epoch {trainer.current_epoch}, as a callback or trainer.max_time said"


def best_of(trainer: Trainer) -> dict[str, Any]:
    """The best score of a fit, its epoch and figures; nothing, where no checkpoint is the best."""
    callback: Any = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint) or callback.best_model_score is None:
        return {}
    score = callback.best_model_score.item()
    found = {"monitor": callback.monitor, "mode": callback.mode, "best": score}
    path = Path(callback.best_model_path)
    if not path.exists():
        return found
    saved = read_checkpoint(path)
    shown = {k: v for k, v in saved.get("figures", {}).items() if k.startswith("val")}
    return {**found, "best_epoch": saved["epoch"], "figures": shown}


def reads_folders(data: Any) -> bool:
    """Whether a data module reads files to predict: its class has a `read` of its own."""
    own = sum("read" in vars(kind) for kind in type(data).__mro__) > 1
    return own and getattr(data, "reads_files", True)


def tell_end(trainer: Trainer, best: ModelCheckpoint) -> None:
    """Prints how a fit ended, what its best epoch reached, and what to do next."""
    run = relative(trainer.default_root_dir)
    record = read_record(Path(run))
    if not record or trainer.fast_dev_run:
        return
    result: dict[str, Any] = record[-1].get("result", {})
    lines = {"Ended": result.get("ended", "")}
    if "best_epoch" in result:
        others = [n for n in result["figures"] if n != result["monitor"]]
        values = (f"{n} {told(*result['figures'][n])}" for n in others)
        score = f"{result['monitor']} {told(result['best'])}"
        lines["Best epoch"] = f"{result['best_epoch']}: {', '.join([score, *values])}"
    lines["Run"] = run
    saves = best in trainer.callbacks and best.monitor and best.save_top_k
    if best.best_model_path:
        # Its configuration knows what options this fit had.
        options = ["--config", str(config_of(Path(run)))] if len(sys.argv) > 2 else []
        source = ["--data.predict_dir", "PATH"] * reads_folders(trainer.datamodule)
        for name, more in {"test": [], "predict": source}.items():
            path = ["--ckpt_path", relative(best.best_model_path)]
            lines[name.title()] = command_line("python", sys.argv[0], name, *options, *more, *path)
    elif saves and trainer.limit_train_batches:
        hint = "see trainer.val_check_interval, check_val_every_n_epoch and limit_val_batches"
        lines["Best epoch"] = f"none, since nothing has measured {best.monitor}; {hint}"
    kinds = [type(logger).__name__ for logger in trainer.loggers]
    if known := [CURVES[kind] for kind in kinds if kind in CURVES]:
        lines["Curves"] = known[0].format(run=run, root=relative(str(root_of(Path(run)))))
    if root_of(Path(run)) != Path(run).parent:  # a fold: what comes next is of all of them
        lines = {name: lines[name] for name in lines if name not in ("Test", "Predict", "Curves")}
    print()
    for name, text in lines.items():
        print(f"{name + ':':12}{text}")


class ProgressBar(TQDMProgressBar):
    """Lightning's, which reads the losses when it is drawn. Logged with ``prog_bar=True``, they
    would be read after every step, and each time the device would be waited for."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.prints = self.is_enabled and not sys.stdout.isatty()
        if self.prints:
            self.disable()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = trainer.callback_metrics.items()
        losses = {k: v.item() for k, v in metrics if k.startswith("train/") and k.endswith("loss")}
        shown = losses | super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the run's, which is always the same
        return shown

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if self.prints and trainer.state.fn == "fit" and not trainer.sanity_checking:
            values = self.get_metrics(trainer, pl_module).items()
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values)
            print(f"Epoch {trainer.current_epoch}: {shown}", flush=True)
