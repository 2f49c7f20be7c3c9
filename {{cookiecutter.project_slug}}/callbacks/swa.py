"""Averages the weights of the last epochs."""

from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging


class SWA(StochasticWeightAveraging):
    """Lightning's, with its extra epoch for all networks: there the averaged weights gather the
    statistics of batch norm, are validated and saved. Without it no checkpoint has them.
    """

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: LightningModule) -> bool:
        return True
