"""What an evaluation found, in figures that mean something."""

from typing import Any

from lightning.pytorch import Trainer


def tell_metrics(trainer: Trainer) -> None:
    """Prints the metrics of the evaluation that has ended; of a share of the samples also how many."""
    if not trainer.is_global_zero:
        return
    system: Any = trainer.lightning_module
    sums, sizes = getattr(system, "sums", {}), getattr(system, "sizes", {})
    metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        is_share = name in sums and not sums[name].is_floating_point()  # of the samples
        count = f"  ({round(value * sizes[name].item())} of {sizes[name]:.0f})" if is_share else ""
        print(f"{name:{width}}  {value:.4g}{count}")
