"""A generated project trains on a SLURM cluster of two nodes and survives being preempted there.

The nodes are two `slurmd` on this machine. Needs Debian's `slurm-wlm` and root; fails without them.
"""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from projects import QUIET, free_ports, wait_for

pytestmark = pytest.mark.slurm

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
# A requeued job waits until its credentials have expired.
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SchedulerParameters=sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE
"""

# Writes down which images each process was trained on; slow enough to be preempted in mid-epoch.
RECORDER = """
import hashlib, json, time
from lightning.pytorch import Callback

class Recorder(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        images = [hashlib.md5(i.numpy().tobytes()).hexdigest() for i in batch[0]]
        self.line = [trainer.current_epoch, trainer.fit_loop.total_batch_idx, images]

    def on_train_batch_end(self, trainer, *args):
        with open(f"seen_{trainer.global_rank}.jsonl", "a") as file:
            print(json.dumps(self.line), file=file)
        time.sleep(0.1)
"""
EPOCHS = 3
EPOCH_STEPS = 40  # of 16 images in each of 2 processes


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Iterator[Callable[..., str]]:
    """`slurm("sbatch", ...)` gives what the command prints; two nodes are up."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch") if not shutil.which(name)]
    assert not missing, f"apt-get install slurm-wlm: there is no {', '.join(missing)}"
    folder = tmp_path / "slurm"
    (folder / "state").mkdir(parents=True)
    config = folder / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    config.write_text(CONFIG.format(folder=folder, host=host, ports=free_ports(3)))
    monkeypatch.setenv("SLURM_CONF", str(config))
    for node in ("one", "two"):
        (folder / f"spool-{node}").mkdir()
    commands = [
        ["slurmctld", "-D", "-c", "-f", str(config)],
        *(["slurmd", "-D", "-N", node, "-f", str(config)] for node in ("one", "two")),
    ]
    daemons = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for words in commands
    ]

    def run(*words: str) -> str:
        result = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout

    def nodes_are_up() -> bool:
        result = subprocess.run(["sinfo", "-h", "-o", "%T %D"], capture_output=True, text=True)
        return result.stdout.strip() == "idle 2"

    try:
        wait_for(nodes_are_up, 60, "starting SLURM")
        yield run
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True, timeout=60)
        time.sleep(2)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=30)


def steps_seen(project: Path, rank: int) -> list[tuple[int, int, list[str]]]:
    path = project / f"seen_{rank}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def test_a_preempted_job_continues_where_it_was(render, slurm, monkeypatch):
    project = render(
        copy=True, strategy="ddp", accelerator="cpu", devices="1", num_nodes="2", logger="csv"
    )
    (project / "recorder.py").write_text(RECORDER)
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # the names of these nodes are in no DNS
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    options = [
        *(*QUIET, f"--trainer.max_epochs={EPOCHS}", "--trainer.callbacks=recorder.Recorder"),
        *("--trainer.log_every_n_steps=5", "--data.batch_size=16", "--data.augment=false"),
    ]
    job = slurm("sbatch", "--parsable", "launch/slurm.sbatch", *options).strip()
    log = project / f"slurm-{job}.log"

    def state() -> str:
        return re.search(r"JobState=(\w+)", slurm("scontrol", "show", "job", job))[1]

    def said() -> str:
        return log.read_text()[-3000:] if log.exists() else "no log"

    middle = EPOCH_STEPS + EPOCH_STEPS // 2
    wait_for(
        lambda: len(steps_seen(project, 0)) >= middle or state() in ("FAILED", "COMPLETED"),
        *(120, "training until the middle of the second epoch"),
    )
    assert state() == "RUNNING", said()
    slurm("scancel", "--signal=USR1", job)
    wait_for(lambda: state() in ("COMPLETED", "FAILED", "CANCELLED"), 180, "the requeued job")
    assert state() == "COMPLETED", said()
    assert "Restarts=1" in slurm("scontrol", "show", "job", job)

    assert [run.name for run in (project / "logs").iterdir()] == ["version_0"]
    for rank in (0, 1):
        steps = [(epoch, step) for epoch, step, _ in steps_seen(project, rank)]
        assert steps == [(i // EPOCH_STEPS, i) for i in range(EPOCHS * EPOCH_STEPS)]
    with (project / "logs" / "version_0" / "metrics.csv").open(newline="") as file:
        logged = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert logged == list(range(4, EPOCHS * EPOCH_STEPS, 5))
    # In each epoch every image once, but for those that fill no last batch.
    for epoch in range(EPOCHS):
        seen = Counter(
            image
            for rank in (0, 1)
            for number, _, images in steps_seen(project, rank)
            for image in images
            if number == epoch
        )
        assert seen.total() == EPOCH_STEPS * 32
        assert max(seen.values()) == 1
