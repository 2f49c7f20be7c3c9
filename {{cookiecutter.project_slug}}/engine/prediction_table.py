"""The table of predictions: its rows from all processes, in the order of the data."""

import os
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed import all_gather_object, get_world_size, is_initialized

from engine.files import write_rows

PLACE = ("_loader", "_index", "_process")  # of a row, in the data


def is_column(values: Any) -> bool:
    """Whether it is a number, a vector or a text for each row."""
    if isinstance(values, list):
        return all(isinstance(value, str) for value in values)
    return isinstance(values, Tensor) and values.ndim in (1, 2) and not values.is_complex()


def join(parts: list[Any]) -> Any:
    return sum(parts, []) if isinstance(parts[0], list) else torch.cat(parts).cpu()


def rows(columns: dict[str, Any], data: Any, system: LightningModule) -> dict[str, list]:
    """The table by column. The data module knows the names of what is predicted."""
    loader, index, _ = (columns.pop(name).tolist() for name in PLACE)
    several = len(set(loader)) > 1
    inputs: list[str] = getattr(data, "predict_names", None) or []
    if several or not inputs:
        inputs = [str(i) for i in range(max(index, default=-1) + 1)]
    # A file's name need not be text.
    given = [os.fsencode(inputs[i]).decode(errors="replace") for i in index]
    place: dict[str, list] = {"loader": loader, "input": given} if several else {"input": given}
    table: dict[str, list] = {}
    for key, values in columns.items():
        names = dict(enumerate(getattr(system, "names", {}).get(key, [])))
        if isinstance(values, list):
            table[key] = values
            continue
        if values.ndim == 1:
            table[key] = values.tolist()
            if names and not values.is_floating_point():
                table[f"{key}_name"] = [names.get(i, "") for i in table[key]]
            continue
        for i, column in enumerate(values.T.tolist()):
            table[f"{key}_{names[i] if len(names) == values.shape[1] else i}"] = column
    for name, known in {} if several else getattr(data, "predict_columns", {}).items():
        free = f"data_{name}" if name in table.keys() | place.keys() else name
        place[free] = [known[i] for i in index]
    return place | table


def gather(columns: dict[str, Any]) -> dict[str, Any]:
    """The rows of all processes, in the order of the data."""
    parts = [columns]
    if is_initialized():
        parts = [{}] * get_world_size()
        all_gather_object(parts, columns)
    columns = {k: join([part[k] for part in parts]) for k in columns}
    places = zip(*(columns[name].tolist() for name in PLACE), strict=True)
    order = [i for _, i in sorted((p, i) for i, p in enumerate(places))]
    index = torch.tensor(order).long()
    texts = {k: [v[i] for i in order] for k, v in columns.items() if isinstance(v, list)}
    return {k: texts[k] if k in texts else v[index] for k, v in columns.items()}


def write_table(path: Path, table: dict[str, list]) -> None:
    if path.suffix == ".csv":
        write_rows(path, chain([table], zip(*table.values(), strict=True)))
        return
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(table), path)
