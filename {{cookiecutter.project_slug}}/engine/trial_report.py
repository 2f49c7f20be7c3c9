"""Reports a trial of sweep.py to Optuna."""

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer


class Report(Callback):
    """Tells Optuna the metric after each validation, and stops a trial that is not promising."""

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.trial.report(trainer.callback_metrics[self.monitor].item(), trainer.current_epoch)
            if self.trial.should_prune():
                self.pruned = trainer.should_stop = True
