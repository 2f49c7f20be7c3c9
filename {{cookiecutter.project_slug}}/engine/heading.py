"""The head of a fit: what is trained, on what."""

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.nn.parameter import UninitializedParameter


class Heading(Callback):
    """Says it in a line; ``--trainer.enable_model_summary true`` has Lightning's table instead."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # later on a strategy may have sharded the parameters
            network: Any = getattr(pl_module, "network", pl_module)
            parameters = [p for p in pl_module.parameters() if p.requires_grad]
            known = not any(isinstance(p, UninitializedParameter) for p in parameters)
            count = f"{sum(p.numel() for p in parameters):,}" if known else "as yet unknown"
            where = f"{trainer.strategy.root_device.type}, {trainer.precision}"
            processes = f", {trainer.world_size} processes" * (trainer.world_size > 1)
            rank_zero_info(
                f"{type(network).__name__}: {count} parameters to train on {where}{processes}"
            )


def headings(trainer: Namespace) -> list[Callback]:
    """A heading in the place of Lightning's table, if nobody asks for that; for a Trainer's settings."""
    if trainer.enable_model_summary is not None or "Summary" in str(trainer.callbacks):
        return []
    trainer.enable_model_summary = False
    return [Heading()]
