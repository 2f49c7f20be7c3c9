"""What an exported file computes: a raw batch's preparation and the system's predictions."""

import sys
from contextlib import redirect_stderr
from dataclasses import is_dataclass
from inspect import Parameter, Signature
from io import StringIO
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from engine.errors import UserError


def leaves(batch: Any, name: str = "input") -> dict[str, Tensor]:
    """The tensors of a batch, by their keys in it; where it has numbers, `input_0`."""
    if isinstance(batch, Tensor):
        return {name: batch}
    batch = vars(batch) if is_dataclass(batch) else batch
    pairs: Any = []
    if isinstance(batch, dict):
        pairs = [(key if name == "input" else f"{name}_{key}", v) for key, v in batch.items()]
    elif isinstance(batch, list | tuple):
        pairs = [(f"{name}_{i}", value) for i, value in enumerate(batch)]
    return {k: tensor for key, value in pairs for k, tensor in leaves(value, str(key)).items()}


def rows_of(batch: Any, size: int) -> Any:
    """So many rows of a batch, again where it has fewer; what has no row for each sample, whole."""
    count = next((tensor.shape[:1] for tensor in leaves(batch).values() if tensor.ndim), None)

    def pick(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(size) % len(tensor)] if tensor.shape[:1] == count else tensor

    return apply_to_collection(batch, Tensor, pick)


class Program(nn.Module):
    """Maps the tensors of a raw batch that matter to the tensors that `predict_step` gives.

    Args:
        system: a system in evaluation mode. One of which a file is to give something else than
            predictions says so in `export_step`; if that does not come from a batch, in
            `export_inputs(count)` what it comes from. `export_dims` names the dimensions that vary.
        batch: a raw batch, or what `export_inputs` gives, of three rows.
        data: its data module, which prepares batches for a system that does not.
    """

    def __init__(self, system: Any, batch: Any, data: Any) -> None:
        super().__init__()
        self.system = system
        own = getattr(data, "own_preparation", nn.Identity())
        self.preparation = getattr(system, "preparation", own)
        self.batch = batch
        # Copies: views of one tensor, as columns are, take torch.export half as long again.
        every = {name: tensor.clone() for name, tensor in leaves(batch).items()}
        if not every:
            raise UserError(
                f"A batch is a {type(batch).__name__}, in which no tensors are found: have "
                "export_batch of the data module make a dict of tensors of it, which its "
                "preparation takes as well"
            )
        self.inputs = dict(every)
        self.exported = self.export()
        used = self.used()
        if len(used) < len(every):
            self.inputs = {name: every[name] for name in used}
            self.exported = self.export()
        self.outputs = self(*self.inputs.values())

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        given = dict(zip(self.inputs, tensors, strict=True))
        every = iter((leaves(self.batch) | given).values())  # in the order of the batch
        batch = apply_to_collection(self.batch, Tensor, lambda _: next(every))
        return results(self.step(batch))

    def step(self, batch: Any) -> Any:
        if not hasattr(self.system, "export_inputs"):
            batch = self.preparation(batch)
        if hasattr(self.system, "export_step"):
            return self.system.export_step(batch)
        return self.system.predict_step(batch, 0)

    @property
    def shapes(self) -> tuple:
        """The dimensions that vary, for `torch.export`: of inputs with a row for each sample."""
        names = getattr(self.system, "export_dims", ("batch",))
        # The others are each tensor's own: targets have another length than inputs.
        dims = [torch.export.Dim(names[0]), *[torch.export.Dim.DYNAMIC] * len(names[1:])]
        tensors = self.inputs.values()
        return tuple(
            dict(enumerate(dims[: t.ndim])) if t.shape[:1] == (3,) else {} for t in tensors
        )

    def export(self) -> torch.export.ExportedProgram:
        example = tuple(self.inputs.values())
        # torch 2.9 decomposes no program that takes any number of inputs.
        names = ["self", *(f"tensors_{i}" for i in range(len(example)))]
        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        Program.forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        torch.distributions.Distribution.set_default_validate_args(False)  # which looks at values
        try:
            with redirect_stderr(StringIO()) as printed:  # if it fails, what torch could follow
                program = torch.export.export(self, example, dynamic_shapes=self.shapes)
            sys.stderr.write(printed.getvalue())  # of the system's own
            return program
        except Exception as error:  # torch's own names are private
            first, *more = str(error).strip().splitlines()
            why = next((line[4:] for line in more if line.startswith("  - ")), first)
            text = f"torch.export cannot follow predict_step ({why}): give the system export_step"
            if "specialized it to be a constant" in str(error):
                text = (
                    "The network or predict_step takes a size, the batch's or another one of "
                    "export_dims, for a constant: write x.shape[0] in the place of len(x)"
                )
            raise UserError(text) from error

    def used(self) -> list[str]:
        """The tensors of a batch whose values lead to the outputs."""
        graph = self.exported.run_decompositions({}).graph
        *_, end = graph.nodes
        found: set[torch.fx.Node] = set()
        ahead = [end]
        while ahead:
            node = ahead.pop()
            if not str(node.target).startswith("aten.sym_size"):
                ahead += [one for one in node.all_input_nodes if one not in found]
            found.add(node)
        nodes = [node for node in graph.nodes if node.op == "placeholder"][-len(self.inputs) :]
        places = dict(zip(self.inputs, nodes, strict=True))
        used = [name for name, node in places.items() if node in found]
        used = used or [name for name, node in places.items() if node.users][:1]  # for its size
        if not used:
            raise UserError("The predictions depend on nothing in a batch: there is no input")
        return used

    def named(self) -> list[str]:
        """The names of the inputs in the file: `input`, if the only one has none but a number."""
        names = list(self.inputs)
        return ["input"] if len(names) == 1 and names[0].startswith("input_") else names

    def named_outputs(self) -> list[str]:
        """The names of the outputs in the file: none is that of an input."""
        return [f"{name}_output" if name in self.named() else name for name in self.outputs]

    def compare(self, batch: Any, predicted: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The inputs of the file for a batch, and what it is to give (None: what `step` gives)."""
        every, right = leaves(batch), results(self.step(batch) if predicted is None else predicted)
        inputs = dict(zip(self.named(), (every[name] for name in self.inputs), strict=True))
        return inputs, [right[name] for name in self.outputs]


def results(predicted: Any) -> dict[str, Tensor]:
    """The tensors that `predict_step` gives, by name."""
    found = predicted if isinstance(predicted, dict) else {"prediction": predicted}
    found = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not found:
        raise UserError("predict_step gives no tensor and no dict of tensors: nothing to export")
    return found
