"""A small table of two classes, with a column of each kind and gaps."""

import random
from pathlib import Path


def write(folder: Path) -> list[str]:
    chance = random.Random(0)
    lines = ["id,size,colour,ripe,picked,fruit"]
    for i in range(100):
        fruit = ("apple", "plum")[i % 2]
        size = f"{chance.gauss(7 - 3 * (i % 2), 1):.2f}" if i % 7 else ""
        colour = chance.choice(("red", "green", "yellow") if i % 2 == 0 else ("blue", "red"))
        ripe, day = chance.choice(("true", "false")), 1 + i % 28
        lines.append(f"no{i:03},{size},{colour},{ripe},2026-08-{day:02},{fruit}")
    path = folder / "fruits.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return [f"--data.data_path={path}", "--data.target=fruit", "--data.id_column=id"]
