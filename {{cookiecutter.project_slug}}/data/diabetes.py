"""Scikit-learn's bundled diabetes data: 442 patients with 10 measures each, without a download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow

from data.tables import TableData
from engine.splits import Rows

NAMES = ["age", "sex", "bmi", "blood pressure", *(f"serum {i}" for i in range(1, 7))]


class Diabetes(TableData):
    """How far the disease is a year later (25 to 346). A fifth of the rows, chosen by `seed`, is
    the test split."""

    target = "progression"
    task = "regression"

    def read_splits(self) -> tuple[pyarrow.Table, Rows]:
        # What `load_diabetes` reads, without the second that importing scikit-learn takes.
        [package] = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr,misc]
        folder = Path(package, "datasets", "data")
        measures = np.loadtxt(folder / "diabetes_data_raw.csv.gz").T
        progression = np.loadtxt(folder / "diabetes_target.csv.gz")
        return pyarrow.table([*measures, progression], [*NAMES, self.target]), {}
