"""Logs the norms of gradients and weights."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from engine.compat import step_logged


class Norms(Callback):
    """Logs the 2-norm of all gradients (before they are clipped) and of all weights of each
    optimizer, at the steps that are logged anyway. With FSDP 1 they are those of a process's shard.
    """

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        every = trainer.log_every_n_steps
        if not every or (step_logged(trainer) + 1) % every:
            return
        number = f"_{trainer.optimizers.index(optimizer)}" if len(trainer.optimizers) > 1 else ""
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in weights if p.grad is not None]
        for name, tensors in (("gradient", gradients), ("weight", [p.detach() for p in weights])):
            norm = get_total_norm(tensors)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # FSDP 2
            if name == "gradient" and optimizer.defaults.get("fused"):
                # In 16-mixed a fused optimizer takes scaled gradients, and unscales them itself.
                scaler = getattr(trainer.precision_plugin, "scaler", None)
                norm = norm / scaler.get_scale() if scaler else norm
            pl_module.log(f"train/{name}_norm{number}", norm)
