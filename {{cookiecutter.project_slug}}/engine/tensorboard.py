"""How a run looks in TensorBoard."""

from collections.abc import Mapping

from lightning.pytorch import loggers

# Patterns of the metrics in each chart of the tab CUSTOM SCALARS.
CHARTS = {
    "loss": ["(train|val)/.*loss"],
    "validation": ["val/(?!.*loss)"],
    "learning rate": ["train/lr-"],
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
