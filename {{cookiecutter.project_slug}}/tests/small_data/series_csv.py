"""Two days and more of two made-up series, with a covariate."""

import csv
from datetime import datetime, timedelta
from math import pi, sin
from pathlib import Path


def write(folder: Path) -> list[str]:
    path = folder / "series.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "load", "price", "holiday"])
        for hour in range(240):
            day = 5 * sin(hour * pi / 12)
            time = datetime(2024, 1, 1) + timedelta(hours=hour)
            writer.writerow(
                [time.isoformat(), 20 + day + hour % 7, 300 - day, int(hour % 168 > 143)]
            )
    return [
        *(f"--data.data_path={path}", "--data.values=[load, price]", "--data.covariates=[holiday]"),
        *("--data.window=36", "--data.horizon=6", "--data.season=24"),
    ]
