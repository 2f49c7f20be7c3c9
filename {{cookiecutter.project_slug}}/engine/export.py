"""Exports a checkpoint: `python export.py CKPT --format onnx|pt2|torchscript --output PATH`.

The file takes uint8 `images` (B, C, H, W), for any B. A classifier gives `probabilities`
(B, num_classes); an autoencoder `reconstruction`, in [-1, 1], and `embedding` (B, D). A gan takes
standard normal `noise` (B, latent_dim) and gives `images` in [-1, 1]. The metadata holds
`class_names` and `image_shape` as JSON.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from engine.errors import UserError, plain_errors
from engine.runs import AtomicCheckpointIO, find_checkpoint, read_checkpoint, run_of

TOLERANCE = 1e-4


class Deployed(nn.Module):
    """A network with the preparation of its input and the meaning of its output."""

    def __init__(self, network: Any, image_shape: list[int]) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_shape
        self.input = "noise" if hasattr(network, "generator") else "images"

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        if self.input == "noise":
            return {"images": self.network(inputs)}
        images = inputs / 127.5 - 1
        if hasattr(self.network, "decoder"):
            embedding = self.network.encoder(images)
            return {"reconstruction": self.network.decoder(embedding), "embedding": embedding}
        return {"probabilities": self.network(images).softmax(dim=1)}

    def example(self, batch: int) -> Tensor:
        if self.input == "noise":
            return torch.randn(batch, self.network.latent_dim)
        return torch.randint(256, (batch, *self.image_shape), dtype=torch.uint8)


def load(path: Path) -> tuple[Deployed, dict[str, str]]:
    """What a checkpoint, plain or sharded, has learnt, and the metadata."""
    checkpoint = read_checkpoint(path)
    hparams = checkpoint.get("hyper_parameters", {})
    if "_class_path" not in hparams:
        raise UserError(f"{path} is from a fit in Python: it cannot rebuild its network")
    module, _, name = hparams["_class_path"].rpartition(".")
    system = getattr(import_module(module), name)  # Lightning wants it imported
    source: Any = path
    if path.is_dir():
        torch.save(AtomicCheckpointIO().load_checkpoint(path), source := BytesIO())
        source.seek(0)
    network = system.load_from_checkpoint(source, map_location="cpu").network
    data = (
        checkpoint.get("datamodule_hyper_parameters", {}).get("_class_path", "").rpartition(".")[2]
    )
    names = checkpoint.get(data, {}).get("class_names")
    shape = hparams["network"]["init_args"].get("image_shape")
    if shape is None:
        raise UserError(
            f"{path}: what images its network takes is not known: it has no image_shape"
        )
    metadata = {"class_names": json.dumps(names), "image_shape": json.dumps(shape)}
    return Deployed(network, shape).eval(), metadata


def write(module: Deployed, metadata: dict[str, str], kind: str, path: str) -> None:
    example = module.example(3)
    shapes = ({0: torch.export.Dim("batch")},)
    if kind == "torchscript":
        script = torch.jit.trace(module, example, strict=False)  # for the dict that it returns
        torch.jit.save(script, path, _extra_files=metadata)
        return
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    if kind == "pt2":
        torch.export.save(program, path, extra_files=metadata)
        return
    names: Any = {"input_names": [module.input], "output_names": list(module(example))}
    onnx: Any = torch.onnx.export(program, dynamic_shapes=shapes, verbose=False, **names)
    onnx.model.metadata_props.update(metadata)
    onnx.save(path)


def run(kind: str, path: str, inputs: Tensor) -> Iterable[Tensor]:
    """What the file gives."""
    if kind == "torchscript":
        return torch.jit.load(path)(inputs).values()
    if kind == "pt2":
        return torch.export.load(path).module()(inputs).values()
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return map(torch.from_numpy, session.run(None, {session.get_inputs()[0].name: inputs.numpy()}))


@torch.no_grad()
def export(
    checkpoint: str,
    format: Literal["onnx", "pt2", "torchscript"] | None = None,
    output: Path | None = None,
    root: Path = Path("logs"),
) -> None:
    """Writes a file that gives what the checkpoint gives.

    Args:
        checkpoint: a checkpoint, a run folder, or `best` or `last` of the newest run.
        format: by default what the output's ending says (.onnx, .pt2), or onnx; torchscript is
            deprecated in PyTorch.
        output: by default `model.FORMAT` in the run folder.
        root: the folder of the runs.
    """
    format = format or ("pt2" if output and output.suffix == ".pt2" else "onnx")
    if format == "torchscript":
        print("TorchScript is deprecated in PyTorch; prefer --format pt2 or onnx.")
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        # Whether other batch sizes work is verified.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    path = find_checkpoint(checkpoint, "best", root)
    output = output or run_of(path) / f"model.{format}"
    module, metadata = load(path)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.{format}")
    try:
        write(module, metadata, format, str(temporary))
        differences = []
        for inputs in (module.example(1), module.example(8)):
            pairs = zip(run(format, str(temporary), inputs), module(inputs).values(), strict=True)
            differences += [(found - expected).abs().max() for found, expected in pairs]
        difference = torch.stack(differences).max().item()  # NaN if any is
        if not difference <= TOLERANCE:
            raise UserError(
                f"The {format} file differs from {path} by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}, and was removed; try another --format"
            )
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"Exported {path} to {output} (max abs difference {difference:.1e})")


def main() -> None:
    with plain_errors():
        try:
            auto_cli(export)
        except ModuleNotFoundError as error:
            if error.name not in ("onnx", "onnxscript", "onnxruntime"):
                raise
            sys.exit(f'error: {error}: python -m pip install -e ".[export]"')
