"""A trained model from Python gives the rows that `predict` writes, whatever it is given."""

import csv
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from projects import ONE_CPU, QUIET, SMALL, command, inside, small_data


def written(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = ("input", "prediction_name")
    return [{k: v if k in texts else float(v) for k, v in row.items()} for row in rows]


def numbers(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "input"} for row in rows]


def test_files_images_and_arrays_from_any_folder(render, tmp_path, monkeypatch):
    with inside(render(data="image_folder", model="cnn"), tmp_path):
        options = [*SMALL, *small_data("image_folder", tmp_path / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=1", "--model.network.width=4")
        files = sorted(str(path) for path in Path("data").rglob("*.*"))[:3]
        Path("new").mkdir()
        for i, file in enumerate(files):  # lossless: as the pixels are
            Image.open(file).save(f"new/{i}.png")
        files = [f"new/{i}.png" for i in range(len(files))]
        predict = ["predict", *ONE_CPU, *QUIET, "--ckpt_path=best"]
        command("train", *predict, "--data.predict_dir=new", "--predictions.output=folder.csv")
        command("train", *predict, f"--data.predict_dir={files[1]}", "--predictions.output=one.csv")
        expected = written(Path("folder.csv"))
        assert written(Path("one.csv")) == expected[1:2]

        Path("data").rename("moved")  # what it was trained on need not be there
        Path("elsewhere").mkdir()
        os.chdir("elsewhere")
        from predictor import load

        predictor = load("../logs/version_0")
        assert numbers(predictor("../new")) == numbers(expected)
        assert predictor("../new/1.png") == [{**expected[1], "input": "../new/1.png"}]
        files = [f"../{file}" for file in files]
        assert [row["input"] for row in predictor(files[::-1])] == files[::-1]
        assert numbers(predictor(files[::-1])) == numbers(expected[::-1])
        images = [Image.open(file).convert("RGB") for file in files]
        arrays = np.stack([np.asarray(image) for image in images])
        for source in (images, arrays, torch.from_numpy(arrays), arrays.transpose(0, 3, 1, 2)):
            assert numbers(predictor(source)) == numbers(expected)
        assert (
            numbers(predictor(arrays[1])) == numbers(predictor(images[1])) == numbers(expected)[1:2]
        )
        assert not Path("logs").exists()
        for wrong, why in (
            (arrays / 255, "give integers"),
            (np.full((2, 9, 9, 3), 300, np.uint16), "in colour of uint16: give them as uint8"),
            ("no.png", "no file or folder no.png"),
            (None, "nothing"),
            ([], "nothing to predict in"),
        ):
            with pytest.raises(ValueError, match=why):
                predictor(wrong)


def test_own_data_sets_take_arrays_of_their_kind(render, tmp_path):
    with inside(render(model="mlp"), tmp_path):
        from predictor import Predictor
        from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_convert

        from data.plain import PlainData
        from engine.errors import mistake_of
        from models.classifier import Classifier
        from models.networks.mlp import MLP

        inputs = torch.rand(20, 5)
        data = PlainData(TensorDataset(inputs, torch.arange(20) % 3))
        system = Classifier(MLP([5], 3, [4]), class_names=["a", "b", "c"]).eval()
        predictor = Predictor(system, data)
        probability = system(inputs[:4]).softmax(dim=1)
        for source in (inputs[:4], inputs[:4].double().numpy(), inputs[:4].tolist()):
            rows = predictor(source)
            found = [[row[f"probability_{name}"] for name in "abc"] for row in rows]
            assert torch.allclose(torch.tensor(found), probability, atol=1e-6)
            assert [row["prediction_name"] for row in rows] == [
                "abc"[i] for i in probability.argmax(dim=1)
            ]
        assert len(predictor(inputs[0])) == 1

        class Own(PlainData):
            def predict_dataloader(self):
                options = {"collate_fn": default_convert} if self.predicted else {}
                return DataLoader(self.splits["predict"], batch_size=2, **options)

        own = Own(data.given["train"], predict=data.given["train"])
        assert numbers(Predictor(system, own)(inputs[3:5])) == numbers(predictor(inputs[3:5]))
        with pytest.raises(RuntimeError) as raised:
            Predictor(system, Own(data.given["train"]))(inputs[3:5])
        assert "Your loader needs a collate_fn" in mistake_of(raised.value)

        class Boxes(Classifier):
            def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
                return {
                    "best": batch[0].amax(1),
                    "boxes": [*batch[0].split(1)],
                    "mean": batch[0].mean(),
                }

        [*_, row] = Predictor(Boxes(system.network), data)(inputs[:3])
        assert torch.equal(row["boxes"], inputs[2:3]) and "mean" not in row

        class Stream(IterableDataset):
            def __iter__(self):
                yield from data.given["train"]

        assert numbers(predictor(Stream())) == numbers(predictor(inputs))
        assert [row["input"] for row in predictor(Stream())][-1] == "19"
        streamed = Predictor(system, PlainData(Stream(), Stream(), Stream()))
        assert numbers(streamed(inputs)) == numbers(predictor(inputs))
        with pytest.raises(ValueError, match=r"torch.int64 of shape \(4, 5\) where a sample has"):
            predictor(torch.ones(4, 5, dtype=torch.long))


def test_what_cannot_be_loaded_is_a_sentence(render, tmp_path):
    with inside(render(), tmp_path):
        from predictor import load

        with pytest.raises(ValueError, match="load nothing: no checkpoint there"):
            load("nothing")


def test_two_threads_leave_the_log_as_it_was(render):
    with inside(render()):
        from engine.predictor import quiet

        logger = logging.getLogger("lightning.pytorch")
        level, threads = logger.level, [quiet(), quiet()]
        for thread in threads:
            thread.__enter__()
        assert logger.level > level
        for thread in threads:  # the first one ends first
            thread.__exit__(None, None, None)
        assert logger.level == level


def test_frames_and_rows_are_read_as_the_file_that_they_make(render, tmp_path):
    pandas = pytest.importorskip("pandas")
    with inside(render(data="series_csv"), tmp_path):
        options = [*SMALL, *small_data("series_csv", tmp_path / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        from predictor import load

        frame = pandas.read_csv("data/series.csv")
        frame.loc[frame.index[-6:], ["load", "price"]] = None  # what is to be forecast
        frame.to_csv("ahead.csv", index=False)
        with open("ahead.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        predictor = load()
        expected = predictor("ahead.csv")
        assert len(expected) == 6
        for source in (rows, frame, frame.set_index("time")):
            found = predictor(source)
            assert [row["input"] for row in found] == [row["input"] for row in expected]
            names = ("lead", "forecast_load", "forecast_price")
            assert [[row[name] for name in names] for row in found] == [
                [row[name] for name in names] for row in expected
            ]


def test_tables_take_frames_and_rows(render, tmp_path):
    pandas, pyarrow = map(pytest.importorskip, ("pandas", "pyarrow"))
    with inside(render(data="csv"), tmp_path):
        options = [*SMALL, *small_data("csv", tmp_path / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        command("train", "predict", *ONE_CPU, *QUIET, "--data.predict_dir=data/fruits.csv")
        from predictor import load

        predictor = load()
        expected = predictor("data/fruits.csv")
        with open("logs/version_0/predictions.csv", newline="") as file:
            written = [row["probability_plum"] for row in csv.DictReader(file)]
        assert [str(row["probability_plum"]) for row in expected] == written
        frame = pandas.read_csv("data/fruits.csv")
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        batch = pyarrow.RecordBatch.from_pandas(frame)
        for source in (
            frame,
            rows,
            batch,
            pyarrow.RecordBatchReader.from_batches(batch.schema, [batch]),
        ):
            assert numbers(predictor(source)) == numbers(expected)
        for wrong in (np.zeros((3, 4)), frame.iloc[:, 0]):
            with pytest.raises(ValueError, match="There are no names of columns"):
                predictor(wrong)
        with pytest.raises(ValueError, match="A predictor is one process"):
            load(devices=2)
