"""How a run looks in TensorBoard."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import loggers

# Patterns of the metrics in each chart of the tab CUSTOM SCALARS.
CHARTS = {
    "loss": ["(train|val)/.*loss"],
    "validation": ["val/(?!.*loss)"],
    "learning rate": ["train/lr-"],
}
# Of all settings those that runs are compared by, by their first and not by their last part.
COMPARED = (
    *("seed_everything", "model", "data", "trainer.max_epochs", "trainer.precision"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val"),
)
LEFT_OUT = {
    *("amsgrad", "capturable", "differentiable", "eps", "foreach", "fused", "maximize"),
    *("compile", "data_dir", "decay_all", "num_workers", "on_device", "scheduler_monitor"),
}


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's, without the charts that would come first, the number of the epoch and the
    learning rates (they are among those of `train`), and with all losses in one chart."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = {f"train/{k}" if k.startswith("lr-") else k: v for k, v in metrics.items()}
        shown = {name: value for name, value in named.items() if name != "epoch"}
        super().log_metrics(shown, step)

    def show_charts(self) -> None:
        layout = {title: ["Multiline", patterns] for title, patterns in CHARTS.items()}
        self.experiment.add_custom_scalars({"run": layout})


def compared(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that matter between runs, for TensorBoard's tab HPARAMS and the like."""
    return {
        name: value
        for name, value in settings.items()
        if name.startswith(COMPARED)
        and name.rpartition(".")[2] not in LEFT_OUT
        and value not in (None, "None")
    }
