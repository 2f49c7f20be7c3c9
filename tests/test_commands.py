"""What the images' tests show of commands holds for the cells of the other modalities, too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from projects import ONE_CPU, QUIET, command, evaluate, inside, small_data
from templates import CELLS, DATA, row_of

OTHERS = [cell for cell in CELLS if DATA[cell[0]]["modality"] != "images"]
# One cell of each of their systems, on data of one's own where there is some.
SYSTEMS = {row_of(*cell)["system"]: cell for cell in OTHERS}
FEW = [*QUIET, "--data.batch_size=8", "--data.num_workers=0", "--pictures.every_n_epochs=0"]
FIT = ["train", "fit", "--trainer.limit_train_batches=5", "--trainer.max_epochs=2"]

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize(("data", "model"), OTHERS, ids=map("-".join, OTHERS))
def test_resumes_to_the_bit_exports_and_is_swept(render, tmp_path, data, model):
    project = render(data=data, model=model, logger="csv")
    with inside(project, tmp_path):
        options = [*ONE_CPU, *FEW, *small_data(data, tmp_path / "data")]
        options += ["--trainer.limit_val_batches=2"]
        saves = ["--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"]
        fit = [*FIT, *options, *saves, "--last_checkpoint.every_n_train_steps=3"]
        whole = command(*fit).model.state_dict()
        path = Path("logs/version_0/checkpoints/step=3.ckpt").rename("step=3.ckpt")
        parts = command(*fit, f"--ckpt_path={path}").model.state_dict()
        assert all(torch.equal(weight, parts[name]) for name, weight in whole.items())

        # It compares the numbers with those of `predict`, and raises an error if they differ.
        command("export", "best", "--format=pt2", "--output=model.pt2")
        assert Path("model.pt2").is_file()

        sweep = project / "configs" / "sweep" / "default.yaml"
        words = [*FIT[2:], *options, "--settings={}", "--trials=2", "--study=first"]
        command("sweep", f"--config={sweep}", *words)
        assert Path("logs/first/best.yaml").is_file()


BOTH = """
import json, sys
sys.path[:0] = [".", {tests!r}]
import train
from projects import command
if __name__ == "__main__":
    options = sys.argv[1:]
    command(*{fit!r}, *options)
    trainer = command("train", "validate", "--ckpt_path=best", *options).trainer
    if trainer.is_global_zero:
        metrics = {{name: value.item() for name, value in trainer.callback_metrics.items()}}
        json.dump(metrics, open("metrics.json", "w"))
"""


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_find_what_one_does(render, tmp_path, system, strategy):
    data, model = SYSTEMS[system]
    hardware = {"accelerator": "cpu", "devices": "2", "strategy": strategy}
    project = render(data=data, model=model, logger="csv", copy=True, **hardware)
    with inside(project):
        options = [*FEW, *small_data(data, tmp_path / "data")]
        script = BOTH.format(tests=str(Path(__file__).parent), fit=FIT)
        Path("both.py").write_text(script, "utf-8")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "both.py"]
        words = [sys.executable, *launch, *options]
        result = subprocess.run(words, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "sync_dist" not in result.stderr
        checkpoint = Path("logs/version_0/checkpoints/best.ckpt")
        assert checkpoint.is_dir() == (strategy == "fsdp2")
        one = evaluate("validate", checkpoint, *options)
        assert one == pytest.approx(json.loads(Path("metrics.json").read_text()), rel=1e-3)
        if checkpoint.is_dir():
            command("consolidate", str(checkpoint), "plain.ckpt")
            assert evaluate("validate", "plain.ckpt", *options) == pytest.approx(one, rel=1e-4)
