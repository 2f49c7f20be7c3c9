"""Messages that are not shown, since they tell nobody anything."""

import logging
import sys
import warnings
from collections.abc import Callable
from functools import cache

FILTERS = (
    # lightning 2.6 calls a torch class that torch 2.14 renames.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", "lightning.pytorch.utilities._pytree"),
    # Steps are counted across epochs: an epoch shorter than the interval is logged all the same.
    (r"The number of training batches .* is smaller than the logging", "lightning.pytorch.loops"),
    # A machine that belongs to a SLURM cluster may be used for a run of its own.
    (r"The `srun` command is available", "lightning.fabric.plugins.environments.slurm"),
    # SWA has its own scheduler from its first epoch on; what came before may step as it likes.
    (r"SWA is currently only supported every epoch", "lightning.pytorch.callbacks"),
    # Convolutions give some gradients with the channels last; a bucket takes a copy of each anyway.
    (r"Grad strides do not match bucket view strides", "torch.autograd.graph"),
    # A system that takes further modules: models/system.py leaves them out.
    (r"Attribute '.*' is an instance of `nn.Module`", "lightning.pytorch.utilities"),
    # Lightning makes the replicas in a stream of their own, as torch advises for ddp.
    (r"The AccumulateGrad node's stream does not match", "torch.autograd.graph"),
    # fsdp keeps batch norm in float32, as it should.
    (r"Both mixed precision and an auto_wrap_policy were", "torch.distributed.fsdp._wrap_utils"),
    # Samples per second are what it is used for.
    (r"When using the `ThroughputMonitor`, you need to define", "lightning.pytorch.callbacks"),
    # The names of the `ThroughputMonitor` have a bar in them.
    (r"MLFlow only allows '_', '/', '.' and ' '", "lightning.pytorch.loggers.mlflow"),
    # It is about the size that the model summary prints.
    (r"Precision .* is not supported by the model summary", "lightning.pytorch.utilities"),
    # A frozen backbone's batch norm is trained from the start.
    (r"The provided params to be frozen already exist", "lightning.pytorch.callbacks"),
    # A test takes the averaged weights, which are those of the checkpoint.
    (r"You're using the WeightAveraging callback, but load", "lightning.pytorch.callbacks"),
    # engine/predictions.py counts the rows of an iterable data set itself.
    (r"Couldn't infer the batch indices", "lightning.pytorch.loops"),
    # Inputs of an exported file have batches of one size.
    (r"# The axis name: batch will not be used", "torch.onnx._internal.exporter"),
    # A buffer that is a view, as `torch.hann_window` gives: what it is a view of is written.
    (r"No complete tensor found in the group", "torch.export.pt2_archive"),
    # Where no validation came before the end: `tell_end` says so.
    (r"`ModelCheckpoint\(monitor=.*could not find the monitored", "lightning.pytorch.callbacks"),
    # Continuing a run in its own folder is what was asked for.
    (r"Checkpoint directory .* exists and is not empty", "lightning.pytorch.callbacks"),
)

# An evaluation takes the weights of a checkpoint; how they came about does not matter then.
IN_EVALUATIONS = (r"Be aware that when using `ckpt_path`", "lightning.pytorch.trainer.call")
LOG_FILTERS = (
    # What a machine does not have; `Heading` says what is used, `tell_end` why a fit has ended.
    ("lightning.pytorch.utilities.rank_zero", "GPU available: False"),
    ("lightning.pytorch.utilities.rank_zero", "TPU available: False"),
    ("lightning.pytorch.utilities.rank_zero", "`Trainer.fit` stopped: "),
    # The command line has named the checkpoint.
    ("lightning.pytorch.utilities.rank_zero", "Restoring states from the checkpoint path"),
    ("lightning.pytorch.utilities.rank_zero", "Loaded model weights from the checkpoint"),
    # The learning-rate finder puts back what it has changed.
    ("lightning.pytorch.utilities.rank_zero", ".lr_find_"),
    # Lightning advertises other products of its makers at each start.
    ("lightning.pytorch.utilities.rank_zero", "Tip: For seamless cloud"),
    # What was found is said by engine/tune.py, which has a limit of its own.
    ("lightning.pytorch.tuner.batch_size_scaling", "Reached the maximum batch size"),
    ("lightning.pytorch.tuner.batch_size_scaling", "Finished batch size finder"),
    ("lightning.pytorch.trainer.connectors.checkpoint_connector", "`weights_only` was not set"),
    # An experiment, and the database of all, are made when the first run is.
    ("lightning.pytorch.loggers.mlflow", "not found. Creating it"),
    ("mlflow.store.db.utils", "database tables"),
    # An experiment that is kept offline may be made where there is no network.
    ("comet_ml.env_logging", "Failed to log ip"),
    # A process of ddp_spawn ends a moment after another; its traceback says what the error was.
    ("torch.multiprocessing.spawn", "Terminating process"),
    # It wants to be imported before torch to log by itself; Lightning logs.
    ("comet_ml.experiment", "To get all data logged automatically"),
)


def silence() -> None:
    evaluates = sys.argv[1:2] in (["validate"], ["test"], ["predict"])
    for message, module in (*FILTERS, *[IN_EVALUATIONS] * evaluates):
        warnings.filterwarnings("ignore", message=message, module=module.replace(".", r"\."))
    for name, message in LOG_FILTERS:
        logging.getLogger(name).addFilter(without(message))


@cache  # the same filter for the same message: a logger takes it once
def without(message: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: message not in record.getMessage()
