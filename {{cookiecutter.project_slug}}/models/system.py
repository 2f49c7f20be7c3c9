"""Base of all systems: optimizer, schedule, logging, the means of an evaluation, checkpoints."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

with suppress(ImportError):  # copied alone, without a scheduler, init_from and weights of classes
    from engine import losses, modules, schedules, weights


class System(LightningModule):
    """Base of all systems. A subclass implements ``loss`` and, if it predicts, ``predict_step``: a
    dict of tensors with a row for each sample. ``pictures`` is optional (see `callbacks/`).

    Args:
        network: the network to train.
        optimizer: makes the optimizer from the parameters and the learning rate.
        lr: learning rate.
        decay_all: apply weight decay to norms and biases (parameters of one dimension), too.
        scheduler: makes the learning-rate scheduler from the optimizer. If its ``total_steps`` or
            ``T_max`` is left out, it becomes the length of the fit.
        scheduler_interval: whether it steps after each ``step`` or ``epoch``; by default its own
            attribute ``interval``, or else ``step`` if it gets the length of the fit.
        scheduler_monitor: metric for ``ReduceLROnPlateau``, which steps after each validation.
        metrics: further torchmetrics by name, which become ``val/NAME`` and ``test/NAME``.
        init_from: weights to start from: a checkpoint, a run or the file of a ``state_dict``.
        compile: compile the network with ``torch.compile``; checkpoints stay the same.
    """

    network: Any  # an nn.Module; Any, since type checkers do not know its submodules
    preparation: nn.Module  # raw batch -> prepared batch; the data module puts its own here
    names: dict[str, list[str]]  # by prediction: names of its columns or of its class indices
    monitor = "val/loss"  # the metric that says which epoch is best
    mode: Literal["min", "max"] = "min"  # whether a small or a large value of it is good
    tolerances: dict[str, float] = {}  # by metric: how much of one sample does not decide
    parts: tuple[str, ...] = ("network",)  # submodules that have an optimizer each

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable, float], Optimizer] = torch.optim.AdamW,
        lr: float = 1e-3,
        decay_all: bool = False,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        scheduler_interval: Literal["step", "epoch"] | None = None,
        scheduler_monitor: str = "val/loss",
        metrics: dict[str, Metric] | None = None,
        init_from: str | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        # A checkpoint holds no pickled code; the command line adds the objects' configuration.
        objects = ["network", "optimizer", "scheduler", "metrics", "loss", "init_from"]
        self.save_hyperparameters(ignore=objects)
        for name in [n for n, value in self.hparams.items() if isinstance(value, nn.Module)]:
            self.hparams.pop(name)  # such objects of a subclass
        if not isinstance(network, nn.Module):
            signature = f"{type(self).__name__}.__init__ has to say `network: nn.Module`"
            raise MisconfigurationException(f"network is {network!r}: {signature}")
        self.network = network
        if init_from is not None:
            weights.start_from(network, init_from)
        self.preparation = nn.Identity()
        self.names = {}
        self.optimizer = optimizer
        self.lr = lr
        self.decay_all = decay_all
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.scheduler_monitor = scheduler_monitor
        self.metrics = metrics or {}
        self.compile_network = compile
        # Of each schedule: the argument that is its length, and the configured value.
        self.lengths: dict[LRScheduler, tuple[str, float | None]] = {}

    def forward(self, *inputs: Tensor) -> Any:
        """The network's output, in float32 or wider, so that losses are not rounded to 16 bits."""
        outputs = self.network(*apply_to_collection(inputs, Tensor, self.to_weight_dtype))
        return apply_to_collection(outputs, Tensor, widen)

    def to_weight_dtype(self, inputs: Tensor) -> Tensor:
        """Floats in the precision of the network's weights; integers, such as tokens, unchanged."""
        weights = (one for one in self.network.parameters() if one.is_floating_point())
        return inputs.to(next(weights, inputs).dtype) if inputs.is_floating_point() else inputs

    def loss(self, batch: Any) -> Tensor:
        """The mean loss of a batch, in training, validation and test."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        if self.should_log(self.global_step + 1):
            self.log("train/loss", loss)
        return loss

    def should_log(self, step: int) -> bool:
        """Whether a logger, or the end of the epoch, uses what this step logs."""
        # Logging every step takes a quarter of the speed; `prog_bar` makes the CPU wait, too.
        return step % max(self.trainer.log_every_n_steps, 1) == 0 or self.trainer.is_last_batch

    def on_validation_epoch_start(self) -> None:
        # By the names that are logged, such as val/loss.
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int | Tensor] = {}
        self.measured: dict[str, Metric] = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.stage = self.stage_of(dataloader_idx)
        self.batch_weight = self.size_of(batch)
        loss = self.loss(batch)  # may set another batch_weight
        self.add_to_mean("loss", loss * self.batch_weight, self.batch_weight)

    def size_of(self, batch: Any) -> int | Tensor:
        """How much a batch counts in the mean loss of an evaluation: the rows of its tensors. A
        system whose batches are objects, or have tensors of several lengths, overrides it."""
        rows: set[int] = set()
        apply_to_collection(batch, Tensor, lambda tensor: rows.update(tensor.shape[:1]))
        if len(rows) != 1:
            raise MisconfigurationException(
                f"How many samples has a {type(batch).__name__} whose tensors have "
                f"{sorted(rows)} rows? Have {type(self).__name__}.size_of say it"
            )
        return rows.pop()

    def stage_of(self, loader: int) -> str:
        """`val` or `test`; of further loaders `val_NAME`, by `val_names` or keys, or `val_1`."""
        stage = "test" if self.trainer.testing else "val"
        loaders: Any = getattr(self.trainer, f"{stage}_dataloaders")
        keys = loaders if isinstance(loaders, dict) else range(loader + 1)
        names = getattr(self.trainer.datamodule, f"{stage}_names", None) or keys
        return f"{stage}_{[*names][loader]}" if loader else stage

    def add_to_mean(self, name: str, total: Tensor, count: int | Tensor) -> None:
        """Adds `total`, a sum over `count` samples, to the mean `val/NAME`, but not in training. An
        integer total, such as a number of correct samples, is shown as "28 of 30"."""
        if not self.training:
            name = f"{self.stage}/{name}"
            total = total.detach().float() if total.is_floating_point() else total
            self.sums[name] = total + self.sums.get(name, 0)
            self.counts[name] = count + self.counts.get(name, 0)

    def update_metrics(self, predictions: Tensor, targets: Tensor, metrics: Any = None) -> None:
        """Updates this system's `metrics`, or others given by name. Does nothing in training."""
        if self.training:
            return
        for name, metric in (metrics or self.metrics).items():
            name = f"{self.stage}/{name}"
            if name not in self.measured:
                self.measured[name] = metric.clone().to(self.device)
            self.measured[name].update(predictions, targets)

    def on_validation_epoch_end(self) -> None:
        # All means at once, over all processes: logging each batch costs more than a small step.
        numbers = [*self.sums.values(), *map(torch.as_tensor, self.counts.values())]
        together = torch.stack([number.to(self.device, torch.float) for number in numbers])
        sums, counts = self.trainer.strategy.reduce(together, reduce_op="sum").chunk(2)
        means = dict(zip(self.sums, sums / counts, strict=True))
        self.sizes = dict(zip(self.sums, counts, strict=True))
        self.log_dict(means, prog_bar=True, sync_dist=True)
        if self.metrics and not self.measured:
            text = f"metrics {[*self.metrics]}: the system's loss has to call update_metrics"
            raise MisconfigurationException(text)
        measured = {name: metric.compute() for name, metric in self.measured.items()}
        for name, value in measured.items():
            if name in means or getattr(value, "ndim", False):
                why = "the system's own" if name in means else "no number: choose an average"
                raise MisconfigurationException(f"metrics: {name} is {why}")
        self.log_dict(measured, sync_dist=True)  # equal on all processes; else Lightning warns

    # A subclass that overrides one of them sets its counterpart again.
    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def setup(self, stage: str) -> None:
        # Norms and biases. Found here, since some strategies flatten the parameters later.
        self.no_decay = {n for n, p in self.named_parameters() if not is_lazy(p) and p.ndim < 2}
        # To the Trainer's precision, by `to` below, before a checkpoint's weights are loaded.
        self.trainer.precision_plugin.convert_module(self)
        if stage == "fit" and getattr(self, "class_weights", None) == "balanced":
            losses.balance(self, self.trainer.datamodule)
        if self.compile_network:
            for part in self.parts:
                self.get_submodule(part).compile()  # in place: the weights keep their names

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module.to`, but what has no weights, as the data's statistics, keeps its dtype."""
        trained = [name for name, child in self.named_children() if [*child.parameters()]]
        exact = {n: b for n, b in self.named_buffers() if n.partition(".")[0] not in trained}
        super().to(*args, **kwargs)
        for name, buffer in exact.items():
            owner, _, own = name.rpartition(".")
            setattr(self.get_submodule(owner), own, buffer.to(self.device))
        return self

    def configure_optimizers(self) -> Any:
        return [self.configure_optimizer(part) for part in self.parts]

    def configure_optimizer(self, part: str) -> dict[str, Any]:
        """The optimizer of one of `parts`, and its learning-rate schedule."""
        prefix = f"{part}." if len(self.parts) > 1 else ""  # one part: with what a subclass adds
        named = [(n, p) for n, p in self.named_parameters() if n.startswith(prefix)]
        named = [(n.replace("_fsdp_wrapped_module.", ""), p) for n, p in named if p.requires_grad]
        optimizer = self.optimizer([p for _, p in named], self.lr)
        if optimizer.defaults.get("weight_decay") and not self.decay_all:
            if lazy := [n for n, p in named if is_lazy(p)]:
                raise MisconfigurationException(
                    f"Weight decay spares norms and biases by their shapes, and {lazy[0]} has none "
                    "yet: run the network once in its __init__, or give --model.decay_all true"
                )
            decayed = [p for n, p in named if n not in self.no_decay]
            others = [p for n, p in named if n in self.no_decay]
            groups: list[Any] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
            optimizer = self.optimizer([group for group in groups if group["params"]], self.lr)
        if self.scheduler is None:
            return {"optimizer": optimizer}
        return schedules.configure(self, optimizer)

    def on_train_start(self) -> None:
        # Not earlier: this makes the data loaders, and by now they know where a resumed fit is.
        if self.lengths:
            schedules.set_lengths(self, self.lengths)

    def on_train_epoch_end(self) -> None:
        # Lightning would do this after the checkpoint: a fit that continues would miss a step.
        if self.trainer.lr_scheduler_configs:
            schedules.step_on_plateau(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not isinstance(self.preparation, nn.Identity):
            checkpoint["preparation"] = modules.describe(self.preparation)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "preparation" in checkpoint:
            self.preparation = modules.rebuild(checkpoint["preparation"]).to(self.device)
        saved = checkpoint.get("state_dict", {})
        for name, buffer in self.named_buffers():  # some grow in training, such as a memory bank
            if name in saved and not is_lazy(buffer) and saved[name].shape[1:] == buffer.shape[1:]:
                buffer.resize_(saved[name].shape)


def widen(outputs: Tensor) -> Tensor:
    # float16 and bfloat16 become float32.
    return outputs.float() if outputs.is_floating_point() and outputs.itemsize < 4 else outputs


def weight_of(criterion: Any, labels: Tensor) -> int | Tensor:
    """How much the mean loss of labels (B, ...) counts: as much as there are samples, or in cross
    entropy as the class weights of the labels add up to, without ignored ones."""
    if not hasattr(criterion, "ignore_index"):
        return len(labels)
    counted, weight = labels != criterion.ignore_index, getattr(criterion, "weight", None)
    if weight is None:
        return counted.sum()
    return (weight[labels.clamp(0, len(weight) - 1)] * counted).sum()
