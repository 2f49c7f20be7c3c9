"""Messages of our libraries that tell nobody anything, each filtered as narrowly as can be."""

import logging
import warnings

FILTERS = (
    # lightning 2.6 calls a torch class that torch 2.14 renames.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", "lightning.pytorch.utilities._pytree"),
    # Steps are counted across epochs: an epoch shorter than the interval is logged all the same.
    (r"The number of training batches .* is smaller than the logging", "lightning.pytorch.loops"),
    # Continuing a run in its own folder is what was asked for.
    (r"Checkpoint directory .* exists and is not empty", "lightning.pytorch.callbacks"),
)


def silence() -> None:
    for message, module in FILTERS:
        warnings.filterwarnings("ignore", message=message, module=module.replace(".", r"\."))
    # Lightning advertises other products of its makers at each start.
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: "Tip: For seamless cloud" not in record.getMessage())
