"""What a run on a card has shown, kept in docs/gpu_runs.json and shown in docs/hardware.md."""

import json
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "docs" / "gpu_runs.json"
PAGE = ROOT / "docs" / "hardware.md"
MARKERS = ("<!-- gpu-tables -->", "<!-- /gpu-tables -->")


def gather(
    card: str,
    seconds: float,
    results: dict[str, str],
    left: list[str],
    tables: dict[str, Any],
    known: dict,
) -> dict[str, Any]:
    """A column of the page."""
    steps = {
        name.removeprefix("steps-"): {k: v for k, v in step.items() if k not in ("table", "host")}
        for name, step in tables["steps"].items()
    }
    trained = {
        strategy: [kind for kind in kinds if not results.get(f"cnn {kind}: {strategy}", "not run")]
        for strategy, kinds in known.items()
    }
    return {
        "card": card,
        "driver": driver(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "lightning": version("lightning"),
        "seconds": round(seconds),
        "passed": sum(not error for error in results.values()),
        "failed": sorted(name for name, error in results.items() if error),
        "left": sorted(left),
        "trained": {strategy: kinds for strategy, kinds in trained.items() if kinds},
        "steps": steps,
        "race": tables["race"],
    }


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.splitlines()[0].strip()


def runs() -> list[dict[str, Any]]:
    return json.loads(RUNS.read_text(encoding="utf-8")) if RUNS.exists() else []


def keep(found: dict[str, Any]) -> None:
    """Adds a column; one of the same card, versions and day is replaced."""
    same = ("card", "torch", "lightning", "date")
    kept = [run for run in runs() if any(run[key] != found[key] for key in same)] + [found]
    text = json.dumps(kept, indent=1, ensure_ascii=False)
    RUNS.write_text(text + "\n", encoding="utf-8", newline="\n")
    write()


def write() -> None:
    """Puts the tables of all runs into the page, between its markers."""
    before, rest = PAGE.read_text(encoding="utf-8").split(f"{MARKERS[0]}\n")
    _, after = rest.split(MARKERS[1])
    text = f"{before}{MARKERS[0]}\n{table(runs())}\n{MARKERS[1]}{after}"
    PAGE.write_text(text, encoding="utf-8", newline="\n")


def table(columns: list[dict[str, Any]]) -> str:
    """Markdown: a row for each figure, a column for each run."""
    head = ["", *(f"{run['card']}, {run['date']}" for run in columns)]
    facts = [
        ["driver", *(run["driver"] for run in columns)],
        [
            "torch; Lightning; Python",
            *(f"{r['torch']}; {r['lightning']}; {r['python']}" for r in columns),
        ],
        [
            "seconds; checks passed, failed, left for want of time",
            *(
                f"{r['seconds']}; {r['passed']}, {len(r['failed'])}, {len(r['left'])}"
                for r in columns
            ),
        ],
    ]
    names = dict.fromkeys(row["job"] for run in columns for row in run["race"])
    rates, shares, memory, first = [], [], [], []
    for name in names:
        found = [next((r for r in run["race"] if r["job"] == name), None) for run in columns]
        goal = next((f" (goal {row['goal']})" for row in found if row and row["goal"]), "")
        rates.append(
            [name, *(pair(row and [row["ours"], row["by hand"]], "{:,.0f}") for row in found)]
        )
        shares.append([name + goal, *(f"{row['share']:.2f}" if row else "–" for row in found)])
        memory.append([name, *(pair(row and row["memory"], "{:,.0f}") for row in found)])
        first.append([name, *(pair(row and row["first step"], "{:.1f}") for row in found)])
    kinds = dict.fromkeys(name for run in columns for name in run["steps"])
    step_rows = []
    for name in kinds:
        row = [name.replace("-", " ")]
        for run in columns:
            step = run["steps"].get(name)
            row.append(
                "–"
                if step is None
                else f"{step['step, ms']:.2f}; {step['card works, ms']:.2f}; {step['kernels']:.0f}; "
                f"{step['copies to the card']:.0f}; {step['bytes to the card']:,.0f}"
            )
        step_rows.append(row)
    memory = [row for row in memory if {*row[1:]} != {"–"}]
    first = [row for row in first if {*row[1:]} != {"–"}]
    parts = [
        ("", facts),
        ("Share of the loop by hand, median of the laps", shares),
        ("Images a second: ours; by hand", rates),
        ("Most memory on the card, MB: ours; by hand", memory),
        (
            "Seconds from the start of the process to the end of its first step: ours; by hand",
            first,
        ),
        (
            "A step under the profiler: ms; ms in which the card works; kernels; copies; bytes to it",
            step_rows,
        ),
    ]
    text = []
    for title, rows in parts:
        if rows:
            lines = [[re.sub("^$", title, head[0]), *head[1:]], ["---"] * len(head), *rows]
            text.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(text)


def pair(values: list[float] | None, form: str) -> str:
    return "; ".join(form.format(value) for value in values) if values else "–"
