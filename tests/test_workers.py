"""The processes that sweeps and cross-validations fit in."""

import multiprocessing
import os
import subprocess
import sys

from projects import inside, is_running, wait_for

WORK = """
import multiprocessing, os, sys, time
from pathlib import Path
from engine.processes import make_worker

def work(path):
    child = multiprocessing.Process(target=time.sleep, args=(600,))
    child.start()
    Path(path + ".tmp").write_text(f"{os.getpid()} {child.pid}")
    os.rename(path + ".tmp", path)
    time.sleep(600)

if __name__ == "__main__":
    make_worker().submit(work, sys.argv[1]).result()
"""


def test_loading_of_data_starts_its_workers_as_ever(render):
    with inside(render()):
        from engine.processes import make_worker

        with make_worker() as worker:
            method = worker.submit(multiprocessing.get_start_method).result()
        assert method == multiprocessing.get_start_method()


def test_a_worker_and_its_children_end_with_the_process_that_made_it(render, tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    pids = tmp_path / "pids"
    environment = os.environ | {"PYTHONPATH": str(render())}
    with subprocess.Popen([sys.executable, "work.py", pids], cwd=tmp_path, env=environment) as main:
        wait_for(pids.exists, 60, "starting")
        running = [int(pid) for pid in pids.read_text().split()]
        assert all(map(is_running, running))
        main.kill()
    wait_for(lambda: not any(map(is_running, running)), 30, "ending")
