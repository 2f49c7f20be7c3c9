"""Exported files give what the checkpoint gives, without the project and, as ONNX, without torch."""

import importlib
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from math import log
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint
from projects import SMALL, command, inside
from templates import CELLS, MODELS, SYSTEMS

FORMATS = ("onnx", "pt2", "torchscript")
FILES = list(itertools.product([model for data, model in CELLS if data == "digits"], FORMATS))
# Each kind of system and each format once: what a maintainer runs on every save.
FIRST_OF_SYSTEM = {MODELS[model]["system"]: model for model in reversed(MODELS)}
FAST = [(FIRST_OF_SYSTEM[system], FORMATS[i % 3]) for i, system in enumerate(SYSTEMS)]
# What a server does that has never heard of PyTorch or of the project.
SERVER = """
import json, sys
for name in ("torch", "lightning", "models", "data", "export"):
    sys.modules[name] = None  # importing it fails
import numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
[images] = session.get_inputs()
[probabilities] = session.run(["probability"], {images.name: numpy.load("images.npy")})
numpy.save("probabilities.npy", probabilities)
print(json.dumps(session.get_modelmeta().custom_metadata_map))
"""


@pytest.fixture(scope="module")
def trained(render, tmp_path_factory):
    """`trained("vit")` is a project of this model and a folder with a small run of it."""
    made = {}

    def trained(model: str) -> tuple[Path, Path]:
        if model not in made:
            project, folder = render(model=model), tmp_path_factory.mktemp(model)
            with inside(project, folder):
                command("train", "fit", *SMALL, "--trainer.max_epochs=1")
            made[model] = project, folder
        return made[model]

    return trained


def expected(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the network of the checkpoint gives, prepared and understood by hand."""
    from engine.runs import read_checkpoint

    path = "logs/version_0/checkpoints/best.ckpt"
    name = read_checkpoint(Path(path))["hyper_parameters"]["_class_path"].rpartition(".")[2]
    module = __import__(f"models.{name.lower()}", fromlist=[name])
    network = getattr(module, name).load_from_checkpoint(path).eval().network
    with torch.no_grad():
        if name == "GAN":
            return {"images": network.generator(inputs)}
        images = inputs.float() / 127.5 - 1
        if name == "Autoencoder":
            embedding = network.encoder(images)
            found = network.decoder(embedding)
            error = (found - images).square().mean(dim=(1, 2, 3))
            return {"error": error, "embedding": embedding, "reconstruction": found}
        probability = network(images).softmax(dim=1)
        return {"prediction": probability.argmax(dim=1), "probability": probability}


def inputs_of(model: str, batch: int) -> torch.Tensor:
    if model == "gan":
        return torch.randn(batch, 64)
    return torch.randint(256, (batch, 1, 8, 8), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("model", "kind"),
    [pytest.param(*c, marks=[] if c in FAST else pytest.mark.slow, id="-".join(c)) for c in FILES],
)
def test_gives_what_the_checkpoint_gives(trained, capfd, recwarn, model, kind):
    project, folder = trained(model)
    with inside(project, folder):
        capfd.readouterr()
        recwarn.clear()
        command("export", "best", "--format", kind)
        output = capfd.readouterr()
        assert "largest difference from predict" in output.out
        assert ("deprecated" in output.out) == (kind == "torchscript")
        assert not output.err
        assert not recwarn.list
        [path] = Path("logs/version_0").glob(f"model.{kind}")
        for batch in (2, 7):  # none that the export itself has tried
            inputs = inputs_of(model, batch)
            outputs, metadata = read(path, inputs)
            right = expected(inputs)
            assert outputs.keys() == right.keys()
            for name in right:
                torch.testing.assert_close(outputs[name], right[name], atol=1e-4, rtol=0)
        assert json.loads(metadata["class_names"]) == list("0123456789")
        assert json.loads(metadata["image_shape"]) == [1, 8, 8]


def read(path: Path, inputs: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        arrays = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, map(torch.from_numpy, arrays), strict=True))
        return outputs, session.get_modelmeta().custom_metadata_map
    metadata = {"class_names": "", "image_shape": ""}
    if path.suffix == ".pt2":
        module = torch.export.load(path, extra_files=metadata).module()
    else:
        module = torch.jit.load(path, _extra_files=metadata)
    return module(inputs), metadata


def test_onnx_runs_without_torch_and_project(trained, tmp_path, capfd):
    project, folder = trained("cnn")
    images = inputs_of("cnn", 5)
    with inside(project, folder):
        command("export", "logs/version_0", "--output", f"{tmp_path}", '--data={"seed": 5}')
        assert "other data than those of the fit: seed=5 (there 0)" in capfd.readouterr().out
        right = expected(images)["probability"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    np.save(tmp_path / "images.npy", images.numpy())
    result = subprocess.run(
        [sys.executable, "-I", "-c", SERVER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(json.loads(result.stdout)["class_names"]) == list("0123456789")
    found = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(found, right.numpy(), atol=1e-4)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_sharded_checkpoint_is_exported(trained, tmp_path, recwarn):
    project, folder = trained("cnn")
    plain = torch.load(folder / "logs/version_0/checkpoints/best.ckpt")
    sharded = tmp_path / "sharded.ckpt"
    torch.distributed.checkpoint.save(
        {"state_dict": plain.pop("state_dict")}, checkpoint_id=sharded, no_dist=True
    )
    torch.save(plain, sharded / "meta.pt")
    with inside(project, folder):
        recwarn.clear()
        command("export", str(sharded), "--format=pt2", "--output=sharded.pt2")
        assert not recwarn.list
        inputs = inputs_of("cnn", 4)
        found, _ = read(Path("sharded.pt2"), inputs)
        right = expected(inputs)["probability"]
        torch.testing.assert_close(found["probability"], right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_file_that_differs_is_removed(trained, monkeypatch, tmp_path, wrong):
    project, folder = trained("cnn")
    with inside(project, folder):
        from engine import export

        run = export.run
        monkeypatch.setattr(export, "run", lambda *a: [x + wrong for x in run(*a)])
        with pytest.raises(SystemExit, match=r"^error: The pt2 file differs from .* by (1\.0|nan)"):
            command("export", "best", "--format=pt2", f"--output={tmp_path / 'm.pt2'}")
    assert not list(tmp_path.iterdir())


def test_a_failing_export_keeps_the_file_that_was_there(trained, monkeypatch, tmp_path):
    project, folder = trained("cnn")
    path = tmp_path / "model.onnx"
    path.write_text("of yesterday")
    with inside(project, folder):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(SystemExit, match=r"pip install -e .*\[export\]"):
            command("export", "best", f"--output={path}")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["of yesterday"]


def test_a_package_that_the_network_lacks_is_not_taken_for_one_of_the_export(trained, monkeypatch):
    project, folder = trained("cnn")
    with inside(project, folder):
        monkeypatch.setitem(sys.modules, "models.networks.cnn", None)
        with pytest.raises(SystemExit, match=r"models\.networks\.cnn\.CNN, which is not here"):
            command("export", "best")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_packages_are_a_sentence(trained, package):
    project, folder = trained("cnn")
    code = f"import sys; sys.modules['{package}'] = None; sys.path.insert(0, r'{project}')\n"
    code += "sys.argv = ['export.py', 'best', '--output=x.onnx']; import export; export.main()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.strip().endswith('pip install -e ".[export]"')
    assert "\n" not in result.stderr.strip()
    assert not (folder / "x.onnx").exists()


@pytest.mark.parametrize("words", [["best"], ["--ckpt_path", "best"], ["--ckpt_path=best"]])
def test_no_checkpoint_is_a_sentence(trained, tmp_path, words):
    project, _ = trained("cnn")
    with inside(project, tmp_path), pytest.raises(SystemExit, match="best: no checkpoint there"):
        command("export", *words, "--format=pt2")


def test_a_mistake_in_its_options_is_one_line(trained, tmp_path, capfd):
    project, _ = trained("cnn")
    wrong = {"--format=onx": "error: format: expected Literal['onnx', 'pt2', 'torchscript']. Given"}
    wrong["--outptu=x"] = "error: unrecognized arguments: --outptu=x. Did you mean --output?"
    for option, message in wrong.items():
        with inside(project, tmp_path), pytest.raises(SystemExit):
            command("export", "best", option)
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith(message)


def test_a_checkpoint_of_a_fit_from_python_is_a_sentence(trained, tmp_path):
    project, folder = trained("cnn")
    checkpoint = torch.load(folder / "logs/version_0/checkpoints/best.ckpt")
    del checkpoint["hyper_parameters"]["_class_path"]
    torch.save(checkpoint, tmp_path / "python.ckpt")
    with inside(project, tmp_path), pytest.raises(SystemExit, match="from a fit in Python"):
        command("export", "python.ckpt")


class Towers(torch.nn.Module):
    """A system of another make: no `preparation`, and an output with the name of an input."""

    def __init__(self, size):
        super().__init__()
        self.size, self.layer = size, torch.nn.Linear(2, 2)

    def predict_step(self, batch, batch_idx):
        return {"a": self.layer(batch["a"]), "rows": torch.arange(self.size(batch["a"]))}


class Half(torch.nn.Module):
    def forward(self, batch):
        return {name: tensor / 2 for name, tensor in batch.items()}


def test_the_data_prepares_for_a_system_that_does_not(render):
    with inside(render()):
        from engine.program import Program

        system, data = Towers(lambda a: a.shape[0]), SimpleNamespace(own_preparation=Half())
        program = Program(system, {"a": torch.ones(3, 2)}, data)
        torch.testing.assert_close(program.outputs["a"], system.layer(torch.ones(3, 2) / 2))
        assert (program.named(), program.named_outputs()) == (["a"], ["a_output", "rows"])


def test_predictions_that_are_no_tensors_by_name_are_refused(render):
    with inside(render()):
        from engine.program import Program

        system = Towers(lambda a: a.shape[0])
        system.predict_step = lambda batch, batch_idx: (batch["a"], batch["a"])
        with pytest.raises(ValueError, match="gives no tensor and no dict of tensors"):
            Program(system, {"a": torch.ones(3, 2)}, SimpleNamespace())


@dataclass
class Pairs:
    a: torch.Tensor
    b: torch.Tensor


class Varied(torch.nn.Module):
    """Takes a batch of another make; the length of `a` may vary, and `b` has one dimension."""

    export_dims = ("batch", "length")

    def predict_step(self, batch, batch_idx):
        a, b = (batch["a"], batch["b"]) if isinstance(batch, dict) else (batch.a, batch.b)
        return {"sum": a.sum(dim=1) + b}


def test_what_comes_from_no_batch_needs_no_data(render):
    """Batches of a graph, whose edges number its nodes, cannot be cut to other sizes."""

    class Graphs(torch.nn.Module):
        def export_inputs(self, count):
            return {"nodes": torch.arange(6.0 * count).view(count, 3, 2)}

        def export_step(self, batch):
            return {"sum": batch["nodes"].sum(dim=(1, 2))}

    with inside(render()):
        from engine import export
        from engine.program import Program

        batches, expected = export.predict(Graphs(), SimpleNamespace(), (3, 1))
        program = Program(Graphs(), batches[0], None)
        inputs, [right] = program.compare(batches[1], expected[1])
        assert inputs["nodes"].shape == (1, 3, 2) and right.tolist() == [15]


@pytest.mark.parametrize("kind", [Pairs, dict])
def test_a_batch_may_have_lengths_lists_and_scalars(render, tmp_path, kind):
    """What has no row for each sample, as the boxes of each image, stays whole; targets, which no
    prediction needs, have a length of their own."""
    more = {"boxes": [torch.ones(0, 4), torch.ones(5, 4)], "scale": torch.tensor(2.0)}
    more["targets"] = torch.ones(2, 9)
    batch = kind(a=torch.rand(2, 4), b=torch.ones(2), **(more if kind is dict else {}))
    with inside(render()):
        from engine.program import Program, rows_of

        three = rows_of(batch, 3)
        if kind is dict:
            assert [len(one) for one in three["boxes"]] == [0, 5]
        program = Program(Varied(), three, SimpleNamespace())
        assert list(program.inputs) == ["a", "b"]
        exported = torch.export.export(
            program, tuple(program.inputs.values()), dynamic_shapes=program.shapes
        )
        found = exported.module()(torch.ones(5, 7), torch.ones(5))
        assert found["sum"].tolist() == [8.0] * 5


def test_a_batch_without_tensors_is_refused_with_the_way_out(render):
    with inside(render()):
        from engine.program import Program

        with pytest.raises(ValueError, match="is a SimpleNamespace, .* have export_batch of"):
            Program(Towers(len), SimpleNamespace(a=torch.ones(3, 2)), None)


def test_what_no_file_can_hold_is_said(trained, monkeypatch, tmp_path):
    """Predictions that are others each time, and what ONNX does not know."""
    project, folder = trained("mlp")

    def with_noise(self, batch, batch_idx):
        return {"noise": batch[0].flatten(1).sum(1) + torch.rand(batch[0].shape[0])}

    def as_matrices(self, batch, batch_idx):
        return {"found": torch.linalg.matrix_exp(batch[0][:, 0])}

    def as_spectra(self, batch, batch_idx):
        waves, window = batch[0].flatten(1), torch.ones(16, dtype=torch.double)
        spectra = torch.stft(waves, 16, window=window, return_complex=True)
        return {"found": spectra.real.flatten(1)}

    with inside(project, folder):
        from models.classifier import Classifier

        for step, kind, message in (
            (with_noise, "pt2", "others each time .* export_step"),
            (as_matrices, "onnx", "No ONNX function found for .*matrix_exp.* Try --format pt2"),
            (as_spectra, "onnx", "onnxruntime: .*tensor\\(double\\).* Try --format pt2"),
        ):
            monkeypatch.setattr(Classifier, "predict_step", step)
            with pytest.raises(SystemExit, match=message):
                command("export", "best", f"--format={kind}", f"--output={tmp_path / 'x'}")
    assert not list(tmp_path.iterdir())


def test_a_small_number_that_is_added_stays(render, tmp_path):
    """torch.onnx's own optimizer takes 1e-8 for 0, and a row of zeros would become -inf."""

    class Logs(torch.nn.Module):
        def predict_step(self, batch, batch_idx):
            return {"logs": (batch["a"] + 1e-8).log()}

    with inside(render()):
        export = importlib.import_module("engine.export")
        program = export.Program(Logs(), {"a": torch.ones(3, 2)}, SimpleNamespace())
        export.write(program, {}, "onnx", str(tmp_path / "logs.onnx"))
        [found] = export.run("onnx", str(tmp_path / "logs.onnx"), {"a": torch.zeros(5, 2)})
    assert found.flatten().tolist() == pytest.approx([log(1e-8)] * 10)


def test_a_constant_batch_size_is_refused_with_the_reason(render, capfd):
    with inside(render()):
        from engine.errors import UserError
        from engine.program import Program

        with pytest.raises(UserError, match=r"x\.shape\[0\] in the place of len\(x\)"):
            Program(Towers(len), {"a": torch.ones(3, 2)}, None)
        with pytest.raises(
            UserError, match="cannot follow predict_step .*data-dependent.*export_step"
        ):
            Program(Towers(lambda a: len(a) if a.sum() > 0 else 1), {"a": torch.ones(3, 2)}, None)
        with pytest.raises(UserError, match="guard .* <= 25"):  # torch does otherwise for more
            Program(Towers(lambda a: torch.cdist(a, a).shape[0]), {"a": torch.ones(3, 2)}, None)
        assert not capfd.readouterr().err  # torch would print all that it could follow


def test_distributions_are_exported(render):
    """Those of torch look at the values of their arguments, which no file can."""

    class Mixture(torch.nn.Module):
        def predict_step(self, batch, batch_idx):
            return {"deviation": torch.distributions.Normal(batch["a"], batch["a"]).stddev}

    with inside(render()):
        from engine.program import Program

        program = Program(Mixture(), {"a": torch.ones(3, 2)}, SimpleNamespace())
        assert program.outputs["deviation"].tolist() == [[1, 1]] * 3


def test_an_input_may_be_called_as_what_happens_within(render, tmp_path):
    """As a column of a table: the file would name two values alike, which is no file."""
    onnxruntime = pytest.importorskip("onnxruntime")

    class Named(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return torch.stack(inputs, 1).mean(1)

    inputs = torch.randn(3), torch.randn(3)
    exported = torch.export.export(Named(), inputs)
    names = {"input_names": ["stack", "mean"], "output_names": ["found"]}
    onnx = torch.onnx.export(exported, verbose=False, **names)
    with inside(render()):
        importlib.import_module("engine.export").rename_inner(onnx.model.graph, {"stack", "mean"})
    onnx.save(tmp_path / "named.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "named.onnx")
    given = {"stack": inputs[0].numpy(), "mean": inputs[1].numpy()}
    [found] = session.run(["found"], given)
    assert found.tolist() == pytest.approx(Named()(*inputs).tolist())
