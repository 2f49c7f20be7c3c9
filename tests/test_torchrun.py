"""Two "machines" on this one, through launch/torchrun.sh; one of them dies in mid-epoch."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import torch
from projects import QUIET, free_ports, wait_for

# Tells the test how far it is; slow enough to be killed in mid-epoch.
PROGRESS = """
import os, time
from pathlib import Path
from lightning.pytorch import Callback

class Progress(Callback):
    def on_train_batch_end(self, trainer, *args):
        Path(f"step_{trainer.global_rank}").write_text(f"{trainer.global_step} {os.getpid()}")
        time.sleep(0.05)
"""
EPOCHS = 3
EPOCH_STEPS = 20


def progress(project: Path, rank: int) -> tuple[int, int]:
    """The steps that a worker has made, and its process."""
    path = project / f"step_{rank}"
    numbers = path.read_text().split() if path.exists() else []
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else (0, 0)


def start(project: Path, port: int, *options: str) -> list[subprocess.Popen]:
    """The launch script on each machine; the output goes to machine_RANK.log."""
    machines = []
    for rank in (0, 1):
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "NODE_RANK": str(rank),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        with (project / f"machine_{rank}.log").open("w") as log:
            command = ["bash", "launch/torchrun.sh", *options]
            machines.append(
                subprocess.Popen(
                    command, cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            )
    return machines


def test_a_killed_worker_ends_the_fit_and_it_continues(render):
    project = render(
        copy=True, strategy="ddp", accelerator="cpu", devices="1", num_nodes="2", logger="csv"
    )
    (project / "progress.py").write_text(PROGRESS)
    options = [
        *(*QUIET, f"--trainer.max_epochs={EPOCHS}", "--trainer.callbacks=progress.Progress"),
        *("--data.batch_size=16", f"--trainer.limit_train_batches={EPOCH_STEPS}"),
    ]
    machines = start(project, *free_ports(1), *options)

    def said() -> str:
        return (project / "machine_0.log").read_text()

    try:
        middle = EPOCH_STEPS + EPOCH_STEPS // 2
        wait_for(lambda: progress(project, 1)[0] >= middle, 120, "training into the second epoch")
        os.kill(progress(project, 1)[1], signal.SIGKILL)
        wait_for(lambda: all(m.poll() is not None for m in machines), 60, "the end of the others")
        assert all(machine.returncode for machine in machines)
        # What the machine that lives says, and what the other says.
        assert re.search("Connection (closed|reset) by peer", said())
        assert "SIGKILL" in (project / "machine_1.log").read_text()

        last = project / "logs" / "version_0" / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(last, weights_only=True)
        assert checkpoint["global_step"] >= EPOCH_STEPS
        machines = start(project, *free_ports(1), *options, "--ckpt_path=last")
        wait_for(lambda: all(m.poll() is not None for m in machines), 120, "the continued fit")
        assert not any(machine.returncode for machine in machines), said()[-3000:]
    finally:
        for machine in machines:
            machine.kill()
    assert progress(project, 0)[0] == progress(project, 1)[0] == EPOCHS * EPOCH_STEPS
    assert torch.load(last, weights_only=True)["global_step"] == EPOCHS * EPOCH_STEPS
    assert [path.name for path in (project / "logs").iterdir()] == ["version_0"]
