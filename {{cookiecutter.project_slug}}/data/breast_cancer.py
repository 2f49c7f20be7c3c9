"""Scikit-learn's bundled breast cancer data: 569 tumours with 30 measures each; no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow

from data.tables import TableData
from engine.splits import Rows

MEASURES = [
    *("radius", "texture", "perimeter", "area", "smoothness", "compactness"),
    *("concavity", "concave points", "symmetry", "fractal dimension"),
]
NAMES = [f"{kind} {measure}" for kind in ("mean", "error of", "worst") for measure in MEASURES]


class BreastCancer(TableData):
    """Whether a tumour is benign. A fifth of the rows, chosen by `seed`, is the test split."""

    target = "diagnosis"
    task = "classification"

    def read_splits(self) -> tuple[pyarrow.Table, Rows]:
        # What `load_breast_cancer` reads, without the second that importing scikit-learn takes.
        [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
        path = Path(package, "datasets", "data", "breast_cancer.csv")
        *measures, benign = np.loadtxt(path, delimiter=",", skiprows=1).T
        diagnosis = np.where(benign > 0, "benign", "malignant")
        return pyarrow.table([*measures, diagnosis], [*NAMES, self.target]), {}
