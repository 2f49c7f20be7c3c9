"""Exports a checkpoint: `python export.py CKPT --format onnx|pt2|torchscript --output PATH`.

The inputs are what the predictions need of a raw batch (or of the data's `export_batch`): `input`,
or by their keys or numbers (`input_0`). The outputs are those of `predict_step`. Batches have any
size. The metadata has the data's facts."""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import Subset

from engine.errors import UserError, causes, plain_errors
from engine.facts import facts_of, same
from engine.files import written_whole
from engine.parsing import Parser
from engine.predictor import ONE_DEVICE, load_system, made_of
from engine.program import Program, rows_of
from engine.runs import find_checkpoint, run_of

TOLERANCE = 1e-4  # of the largest number that an output has, or of 1


def load(path: Path, settings: dict[str, Any]) -> tuple[Any, LightningDataModule]:
    """The system of a checkpoint, plain or sharded, and the data module that it was fitted on."""
    system, (kind, fitted) = load_system(path), made_of(path, "datamodule_hyper_parameters")
    there = {name: fitted.get(name) for name in settings}
    other = [f"{k}={v} (there {there[k]})" for k, v in settings.items() if not same(v, there[k])]
    if other:
        print(f"Compared on rows of other data than those of the fit: {', '.join(other)}")
    described = path / "meta.pt" if path.is_dir() else path  # a sharded one: all but the weights
    return system, kind.load_from_checkpoint(described, **settings)


def predict(system: Any, data: Any, sizes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """Raw batches of these sizes from what `predict` would read, and what it gives for them; None
    where the file is to give something else."""
    data.trainer = system.trainer = trainer = Trainer(**ONE_DEVICE)
    if hasattr(system, "export_inputs"):
        return [system.export_inputs(size) for size in sizes], [None] * len(sizes)
    data.prepare_data()
    data.setup("predict")
    # The first of several, in a list or a dict.
    raw, *_ = next(iter(CombinedLoader(data.predict_dataloader(), "sequential")))
    export_batch = getattr(data, "export_batch", lambda batch: batch)
    batches: Any = [rows_of(export_batch(raw), size) for size in sizes]
    if hasattr(system, "export_step"):
        return batches, [None] * len(batches)
    # The whole way of `predict`, of these rows. (A list would be several loaders.)
    data.predict_dataloader = lambda: Subset(batches, range(len(batches)))
    found: Any = trainer.predict(system, datamodule=data)
    return batches, found


def write(program: Program, metadata: dict[str, str], kind: str, path: str) -> None:
    if kind == "torchscript":
        # Not strict, for the dict that it returns.
        script = torch.jit.trace(program, tuple(program.inputs.values()), strict=False)
        torch.jit.save(script, path, _extra_files=metadata)
        return
    if kind == "pt2":
        torch.export.save(program.exported, path, extra_files=metadata)
        return
    try:
        onnx: Any = torch.onnx.export(
            program.exported,
            dynamic_shapes=program.shapes,
            optimize=False,  # it drops what adds 1e-8 or less, so that log(x + 1e-8) is log(x)
            verbose=False,
            input_names=program.named(),
            output_names=program.named_outputs(),
        )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{causes(error)[-1]}. Try --format pt2") from error
    from onnxscript.optimizer import fold_constants, inline, remove_unused_nodes

    for simplify in (inline, fold_constants, remove_unused_nodes):
        simplify(onnx.model)
    rename_inner(onnx.model.graph, {*program.named(), *program.named_outputs()})
    onnx.model.metadata_props.update(metadata)
    onnx.save(path)


def rename_inner(graph: Any, outer: set[str]) -> None:
    """Values within an ONNX graph are called as what makes them, `mean`: so may an input be."""
    inner = [value for node in graph for value in node.outputs if not value.is_graph_output()]
    for value in [*inner, *graph.initializers.values()]:
        if value.name in outer:
            value.name = f"inner.{value.name}"


def run(kind: str, path: str, inputs: dict[str, Tensor]) -> list[Tensor]:
    """What the file gives, in its order."""
    if kind != "onnx":
        module = torch.export.load(path).module() if kind == "pt2" else torch.jit.load(path)
        return list(module(*inputs.values()).values())
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    return [torch.from_numpy(array) for array in session.run(None, arrays)]


def difference(found: Tensor, expected: Tensor) -> Tensor:
    """The largest, as a share of the largest number, or of 1."""
    wide = torch.promote_types(expected.dtype, torch.float64)
    found, expected = found.to(wide), expected.to(wide)
    return (found - expected).abs().max() / expected.abs().max().clamp(min=1)


@torch.no_grad()
def export(
    checkpoint: str,
    format: Literal["onnx", "pt2", "torchscript"] | None = None,
    output: Path | None = None,
    root: Path = Path("logs"),
    data: dict[str, Any] | None = None,
) -> None:
    """Writes a file that gives what `predict` gives, and compares the two on rows of the data.

    Args:
        checkpoint: a checkpoint, a run, its name, or `best` or `last` of the newest run.
        format: by default what the output's ending says (.onnx, .pt2), or onnx; torchscript is
            deprecated in PyTorch.
        output: by default `model.FORMAT` in the run folder.
        root: the folder of the runs.
        data: settings of the data module that are no longer those of the fit, such as a folder.
    """
    format = format or ("pt2" if output and output.suffix == ".pt2" else "onnx")
    if format == "torchscript":
        print("TorchScript is deprecated in PyTorch; prefer --format pt2 or onnx.")
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        # Whether other batch sizes work is verified.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # Recurrent layers do it, to no harm: what the file gives is compared.
    warnings.filterwarnings("ignore", message="The tensor attributes? .* w(as|ere) assigned")
    path = find_checkpoint(checkpoint, "best", root.expanduser())
    output = (output or run_of(path)).expanduser()
    output = output / f"model.{format}" if output.is_dir() else output
    system, module = load(path, data or {})
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output, f".{os.getpid()}.{format}") as file:
        batches, expected = predict(system, module, (3, 1, 8))
        program = Program(system, batches[0], module)
        facts = {name: json.dumps(value, default=str) for name, value in facts_of(module).items()}
        write(program, facts, format, str(file))
        differences = []
        for batch, right in zip(batches, expected, strict=True):
            inputs, right = program.compare(batch, right)
            found = run(format, str(file), inputs)
            differences += [difference(a, b) for a, b in zip(found, right, strict=True)]
        worst = torch.stack(differences).max().item()  # NaN if any is
        if not worst <= TOLERANCE:
            one, other = (program(*program.inputs.values()) for _ in range(2))
            if not all(torch.allclose(one[n], other[n], equal_nan=True) for n in one):
                raise UserError(
                    "The predictions of a batch are others each time (dropout, random numbers, a "
                    "state): have the system's export_step(batch) give what stays the same"
                )
            raise UserError(
                f"The {format} file differs from {path} by {worst:.1e}, more than "
                f"{TOLERANCE:.0e}, and was removed; try another --format"
            )
    print(f"Exported {path} to {output} (largest difference from predict: {worst:.1e})")


def main() -> None:
    # Other commands take the checkpoint by this name.
    sys.argv = [word.removeprefix("--ckpt_path=") for word in sys.argv if word != "--ckpt_path"]
    with plain_errors():
        try:
            auto_cli(export, parser_class=Parser, description=__doc__)
        except ModuleNotFoundError as error:
            if error.name not in ("onnx", "onnxscript", "onnxruntime"):
                raise
            sys.exit(f'error: {error}: python -m pip install -e ".[export]"')
