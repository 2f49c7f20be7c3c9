"""Callbacks that look into the steps of a fit; imported beside a project's own modules."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

FOUND: dict[str, Any] = {}
ON_CARD = torch.cuda.is_available()
# Steps that neither the progress bar (each 20th) nor the logger (each 50th) reads.
WATCHED, PROFILED = range(22, 39), range(42, 49)
SHORT = range(2, 9)  # of twelve: the first make the optimizer's state, the tenth is logged


def synchronize() -> None:
    if ON_CARD:
        torch.cuda.synchronize()


class Waits(Callback):
    """In the watched steps whatever waits for the card raises an error."""

    steps = SHORT
    watched = 0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.steps[0] and ON_CARD:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.watched += batch_idx in self.steps
        if batch_idx == self.steps[-1] and ON_CARD:
            torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if ON_CARD:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        expected = len(self.steps)
        assert self.watched == expected, f"{self.watched} steps of {expected} were watched"


class Steps(Waits):
    """Of some steps after the watched ones it keeps what was copied, how long the card worked, and the
    table of the profiler."""

    steps = WATCHED
    turn: Callable[[], None] = staticmethod(synchronize)  # waits until the others stand still

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if batch_idx == PROFILED[0]:
            synchronize()
            self.turn()
            kinds = torch.profiler.ProfilerActivity
            kinds = [kinds.CPU, kinds.CUDA] if ON_CARD else [kinds.CPU]
            self.profile = torch.profiler.profile(activities=kinds)
            self.profile.__enter__()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if batch_idx == PROFILED[-1]:
            synchronize()
            self.profile.__exit__(None, None, None)
            FOUND.update(read_profile(self.profile, len(PROFILED)))
            FOUND.update({"batch": len(batch[0]), "steps": len(PROFILED)})


def read_profile(profile: torch.profiler.profile, steps: int) -> dict[str, Any]:
    """Per step: bytes that were copied to the card, copies, kernels, and milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    of_kind: dict[str, list[dict]] = {}
    for event in events:
        of_kind.setdefault(event.get("cat", ""), []).append(event)
    copies = [e for e in of_kind.get("gpu_memcpy", []) if "HtoD" in e["name"]]
    kernels = of_kind.get("kernel", [])
    works = kernels + of_kind.get("gpu_memcpy", []) + of_kind.get("gpu_memset", [])
    waits = [e for e in of_kind.get("cuda_runtime", []) if "Synchronize" in e["name"]]
    span = 0.0
    if works:
        span = max(e["ts"] + e["dur"] for e in works) - min(e["ts"] for e in works)
    sort = "self_device_time_total" if works else "self_cpu_time_total"
    return {
        "bytes to the card": sum(e["args"]["bytes"] for e in copies) / steps,
        "copies to the card": len(copies) / steps,
        "kernels": len(kernels) / steps,
        # Those of the profile itself, at its end, are no step's.
        "waits": max(len(waits) - 3, 0) / steps,
        "card works, ms": sum(e["dur"] for e in works) / steps / 1000,
        "step, ms": span / steps / 1000,
        "table": profile.key_averages().table(sort_by=sort, row_limit=25, max_name_column_width=60),
        "host": profile.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60
        ),
    }


class CompilesOnce(Callback):
    """After the first epoch whatever would be compiled again raises an error."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            torch.compiler.set_stance("fail_on_recompile")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        torch.compiler.set_stance("default")
