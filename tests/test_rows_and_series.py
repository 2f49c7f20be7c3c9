"""Tables and series under each command: a resumed fit to the bit, folds, a sweep, a file for a service."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import SMALL, command, inside, small_data
from templates import DATA

CHOSEN = [
    # What comes with packages is read otherwise, and is the same from then on.
    pytest.param(name, marks=pytest.mark.slow if row.get("by_size") else pytest.mark.nightly)
    for name, row in DATA.items()
    if row["modality"] in ("tables", "series")
]


@pytest.fixture
def folder(render, tmp_path, data):
    """An empty folder of a project with this data, and the options of a short fit."""
    with inside(render(data=data, logger="csv"), tmp_path):
        yield [*SMALL, *small_data(data, tmp_path / "data")]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("data", CHOSEN)
def test_a_fit_goes_on_to_the_bit_and_its_export_gives_what_predict_writes(folder, tmp_path, data):
    onnxruntime = pytest.importorskip("onnxruntime")
    saves = ["--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"]
    saves.append("--last_checkpoint.every_n_train_steps=3")  # in mid-epoch
    fit = ["train", "fit", *folder, *saves, "--trainer.max_epochs=3"]
    whole = command(*fit).model.state_dict()
    run = Path("logs", "version_0")
    left = (run / "checkpoints" / "step=3.ckpt").rename(tmp_path / "step=3.ckpt")
    continued = command(*fit, f"--ckpt_path={left}").model.state_dict()
    assert whole.keys() == continued.keys()
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())

    checkpoint = str(run / "checkpoints" / "best.ckpt")
    module = command("train", "predict", *folder, "--ckpt_path", checkpoint).datamodule
    rows = rows_of(run / "predictions.csv")
    command("export", checkpoint, "--output=model.onnx")
    session = onnxruntime.InferenceSession("model.onnx")
    [batch, *_] = module.predict_dataloader()
    served = module.export_batch(batch)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    inputs = {
        one.name: served[one.name].numpy().astype(kinds[one.type]) for one in session.get_inputs()
    }
    outputs = [one.name for one in session.get_outputs()]
    for name, array in zip(outputs, session.run(None, inputs), strict=True):
        columns = [c for c in rows[0] if c == name or c.startswith(name) and c != f"{name}_name"]
        found = array.reshape(-1, len(columns))
        right = [[float(row[column]) for column in columns] for row in rows[: len(found)]]
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("data", CHOSEN)
def test_folds_and_a_sweep(render, folder, data):
    command("crossval", "--folds=2", *folder, "--trainer.max_epochs=1")
    scores = rows_of(Path("logs/version_0/summary.csv"))
    assert [row["part"] for row in scores] == ["fold_0", "fold_1", "mean", "deviation"]
    assert all(np.isfinite(float(value)) for row in scores for value in [*row.values()][1:])
    config = f"--config={render(data=data, logger='csv')}/configs/sweep/default.yaml"
    command("sweep", config, "--trials=2", "--settings.trainer.max_epochs=1", *folder)
    runs = sorted(Path("logs").glob("version_*"))
    assert len(runs) == 3 and Path("logs/default/best.yaml").is_file()
