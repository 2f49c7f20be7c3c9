"""Trains on a card what the projects train, and says how fast: `make test-gpu`.

    python benchmarks/gpu [--only checks|steps|race] [--no-record] [--rehearse]

Needs CUDA, torch 2.9 or newer and Lightning 2.6; takes the rest from the folder `wheels/`. Prints a
line for each check and a table, and writes both into docs/gpu_runs.json and docs/hardware.md, a
column for each machine. `--rehearse` goes the same way on a CPU, in small: nothing is recorded.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PRECISIONS = {
    "auto": ("32-true", "bf16-mixed", "16-mixed", "16-true", "bf16-true", "64-true"),
    "ddp": ("32-true", "bf16-mixed", "16-mixed", "16-true", "bf16-true", "64-true"),
    "ddp_spawn": ("32-true", "bf16-mixed"),  # each fit starts a process of its own
    "fsdp": ("32-true", "bf16-mixed", "16-mixed"),
    "fsdp2": ("32-true", "bf16-mixed", "16-true", "bf16-true"),
    "deepspeed_stage_2": ("32-true", "bf16-mixed", "16-mixed"),
}
LAPS = 5
LAST_START = 400  # seconds, after which no check begins: the last ones take a minute


def device(rehearse: bool) -> str:
    """The name of the card.

    Raises:
        SystemExit: there is none, or torch is too old; a sentence.
    """
    try:
        import torch
    except ImportError:
        sys.exit(
            "error: benchmarks/gpu needs torch 2.9 or newer with CUDA, and finds no torch here"
        )
    if rehearse:
        return "CPU"
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f"CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else "none is found"
        sys.exit(
            "error: benchmarks/gpu needs an NVIDIA card that torch can use, with torch 2.9 or newer "
            f"built for CUDA; torch {torch.__version__} sees no card here ({why})"
        )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9):
        sys.exit(f"error: benchmarks/gpu needs torch 2.9 or newer, and this is {torch.__version__}")
    return torch.cuda.get_device_name(0)


class Bench:
    """What all parts need: projects, data and a folder."""

    def __init__(self, folder: Path, rehearse: bool) -> None:
        from templates import render_template

        self.folder, self.rehearse, self.render_template = folder, rehearse, render_template
        self.results: dict[str, str] = {}
        self.left: list[str] = []  # checks that there was no time for
        self.seconds = 150

    def render(self, model: str, data: str = "", strategy: str = "auto") -> Path:
        from cells import ON

        data = data or ON.get(model, ("digits",))[0]
        parent = self.folder / "projects" / f"{data}-{model}-{strategy}"
        if not (parent / "cell").exists():
            parent.mkdir(parents=True)
            hardware = {"accelerator": "gpu", "devices": "1", "strategy": strategy}
            if self.rehearse:
                hardware["accelerator"] = "cpu"
            answers = {"model": model, "data": data, "project_slug": "cell", "logger": "csv"}
            with quiet():
                self.render_template(parent, **answers, **hardware)
        return parent / "cell"

    def watch(self, name: str, function: Any, *arguments: Any) -> None:
        """Runs checks in a process of their own and prints what they say."""
        from children import Child

        child = Child(self.folder / f"{name}.log", function, *arguments)
        try:
            while True:
                what, error = child.receive(self.seconds)
                self.tell(what, error)
        except RuntimeError as error:
            if "it ended" not in str(error) or child.process.exitcode:
                self.tell(f"{name}: ended", str(error))
        child.close()

    @contextmanager
    def tells(self, name: str) -> Iterator[None]:
        try:
            yield
        except (AssertionError, OSError, RuntimeError) as error:
            self.tell(name, str(error))
        else:
            self.tell(name)

    def tell(self, name: str, error: str | None = "") -> None:
        if error is None:
            self.left.append(name)
            print(f"left    {name}: the time is over", flush=True)
            return
        self.results[name] = error
        print(f"{'FAILED' if error else 'passed'}  {name}", flush=True)
        if error:
            print("    " + error[-2500:].replace("\n", "\n    "), flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what the hooks print, each in a process of its own."""
    output = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)


def run_checks(bench: Bench) -> None:
    from importlib.util import find_spec

    import cells

    precisions = list(PRECISIONS["auto"][: 1 if bench.rehearse else 3])
    models = ["mlp"] if bench.rehearse else list(cells.GOALS)
    work: list[tuple] = []
    for strategy, kinds in PRECISIONS.items():
        if bench.rehearse and strategy not in ("auto", "fsdp2"):
            continue
        if strategy.startswith("deepspeed") and not find_spec("deepspeed"):
            print(f"left    {strategy}: deepspeed is not installed", flush=True)
            continue
        model = "mlp" if bench.rehearse else "cnn"
        todo = [(model, kind) for kind in (kinds[:2] if bench.rehearse else kinds)]
        if strategy.startswith(("fsdp", "deepspeed")) and not bench.rehearse:
            todo += [(model, "bf16-mixed") for model in ("resnet", "vit", "gpt")]
        projects = {model: bench.render(model, strategy=strategy) for model, _ in todo}
        work.append((f"strategy-{strategy}", cells.shards, projects, bench.folder / strategy, todo))
    for model in models:
        folder = bench.folder / f"train-{model}"
        work.append((folder.name, cells.train, bench.render(model), folder, model, precisions))
    for model in models[:1] if bench.rehearse else ("cnn", "resnet", "vit", "gpt"):
        folder = bench.folder / f"compile-{model}"
        work.append((folder.name, cells.compiles, bench.render(model), folder, model))
    for data, model in cells_here()[: 2 if bench.rehearse else None]:
        folder = bench.folder / f"goes-{data}-{model}"
        project = bench.render(model, data)
        work.append((folder.name, cells.goes_through, project, folder, data, model))
    # Side by side, each with threads of its own: else all of them would want all processors.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    with ThreadPoolExecutor(max(1, min(14, (os.cpu_count() or 2) - 2))) as pool:
        try:
            list(pool.map(lambda job: bench.watch(*job), work))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def cells_here() -> list[tuple[str, str]]:
    """Each network on one data set, and each data set, as far as this machine has its packages."""
    from templates import DATA, each_once
    from wheels import missing

    return each_once([name for name in DATA if not missing(DATA[name].get("packages", ()))])


def look_into_steps(bench: Bench, data: Path) -> dict[str, Any]:
    import cells
    from children import Child

    models = ("mlp",) if bench.rehearse else ("mlp", "cnn", "resnet", "vit", "gpt")
    looks = [(model, True) for model in models] + [("mlp" if bench.rehearse else "vit", False)]
    names = [f"steps-{m}" + "-from-memory" * (not on_device) for m, on_device in looks]

    def start(name: str, model: str, on_device: bool) -> Child:
        options = [f"--data.on_device={str(on_device).lower()}"]
        options += [] if model in cells.ON else [f"--data.data_dir={data}"]
        project = bench.render(model, cells.ON[model][0] if model in cells.ON else "cifar10")
        arguments = project, bench.folder / name, options
        return Child(bench.folder / f"{name}.log", cells.profiles, *arguments)

    children = [start(name, *look) for name, look in zip(names, looks, strict=True)]
    ready: set[str] = set()
    for name, child in zip(names, children, strict=True):
        with bench.tells(f"{name}: no step waits for the card"):
            child.receive(bench.seconds)
            ready.add(name)
    # All have been watched, and stand still but for the one that is profiled.
    found = {}
    for name, (_, on_device), child in zip(names, looks, children, strict=True):
        if name not in ready:
            continue
        with bench.tells(
            f"{name}: samples {'stay there' if on_device else 'cross once, as bytes'}"
        ):
            child.connection.send("go on")
            step = child.receive(bench.seconds)
            least = 0 if on_device else step["batch"] * 3 * 32 * 32
            most = least + 8 * step["batch"] + 4096  # labels or rows, and single numbers
            # A batch is fetched before the step of the one before it has ended.
            least *= 1 - 1 / step["steps"]
            assert bench.rehearse or least <= step["bytes to the card"] <= most, (
                f"{step['bytes to the card']:.0f} bytes are copied to the card in a step, and "
                f"{least:.0f} to {most} are expected"
            )
            bench.folder.joinpath(f"{name}-profile.log").write_text(
                f"{step['table']}\n{step['host']}\n", encoding="utf-8"
            )
            found[name] = step
    for child in children:
        child.close()
    return found


def jobs(rehearse: bool) -> list[Any]:
    from race import Job

    if rehearse:
        return [
            Job("mlp, 128 images a batch", "mlp", 128, 10, 0.6, precision="32-true"),
            Job("mlp, JPEG", "mlp", 8, 3, precision="32-true", jpeg=True, workers=1),
        ]
    return [
        Job("mlp, 128 images a batch", "mlp", 128, 300, 0.6, alone=True),
        Job("resnet18, 1,024 images a batch", "resnet", 1024, 30, 0.95, alone=True),
        Job("resnet18, compiled", "resnet", 1024, 30, 0.95, compile=True),
        Job("vit, 4,096 images a batch", "vit", 4096, 18, 0.95),
        Job("vit, 4,096 images a batch, compiled", "vit", 4096, 18, 0.95, compile=True),
        Job("vit, 1,024 images a batch", "vit", 1024, 38),
        Job("cnn, 1,024 images a batch", "cnn", 1024, 38),
        Job("cnn, 128 images a batch", "cnn", 128, 300),
        Job("resnet18, images in main memory", "resnet", 1024, 30, on_device=False),
        Job(
            "resnet18, JPEG of 256 x 256, 8 workers",
            "resnet",
            128,
            40,
            None,
            jpeg=True,
            workers=8,
            alone=True,
        ),
    ]


def groups(todo: list[Any]) -> list[list[Any]]:
    """Jobs that are made ready together, as many as the machine has processors and memory for: to
    start a process and to compile takes longer than the race. The first step of those that start
    alone is timed."""
    import torch

    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    size = max(1, min((os.cpu_count() or 1) // 4, memory // 12_000_000_000))
    others = [job for job in todo if not job.alone]
    together = [others[i : i + size] for i in range(0, len(others), size)]
    return [[job] for job in todo if job.alone] + together


def compete(bench: Bench, cifar: Path, photos: Path) -> list[dict[str, Any]]:
    import race
    from children import Child, in_turn

    def start(group: list[race.Job]) -> list[list[Child]]:
        pairs = []
        for job in group:
            project = bench.render(job.model, "image_folder" if job.jpeg else "cifar10")
            folder = bench.folder / f"race-{todo.index(job)}"
            arguments = project, folder, photos if job.jpeg else cifar, job
            pairs.append(
                [
                    Child(folder.with_name(f"{folder.name}-{name}.log"), function, *arguments)
                    for name, function in (("ours", race.ours), ("by-hand", race.by_hand))
                ]
            )
        return pairs

    todo, rows = jobs(bench.rehearse), {}
    order = groups(todo)
    for group, pairs in zip(order, in_turn([partial(start, each) for each in order]), strict=True):
        for child in chain.from_iterable(pairs):
            child.begin()
        first = [first_steps(bench, pair) for pair in pairs]
        for job, pair, seconds in zip(group, pairs, first, strict=True):
            with bench.tells(job.name):
                row = run_laps(bench, pair, seconds)
                row["first step"] = seconds if len(group) == 1 else None
                rows[job] = {"job": job.name, "goal": job.goal, **row}
                bench.folder.joinpath("race.log").write_text(repr(rows), encoding="utf-8")
                print(
                    f"        {job.name}: {row['share']:.2f} of the loop by hand; "
                    f"{row['ours']:,.0f} and {row['by hand']:,.0f} images a second",
                    flush=True,
                )
                assert bench.rehearse or row["share"] >= (job.goal or 0), "below the goal"
        for child in chain.from_iterable(pairs):
            child.close()
    return [rows[job] for job in todo if job in rows]


def first_steps(bench: Bench, pair: list[Any]) -> list[float] | RuntimeError:
    """Seconds to the first step of each, after a lap that warms up; or why one has failed."""
    found = []
    try:
        for child in pair:
            child.receive(bench.seconds)
            child.connection.send("go on")
            found.append(child.receive(bench.seconds)[1])
    except RuntimeError as error:
        return error
    return found


def run_laps(bench: Bench, pair: list[Any], first: list[float] | RuntimeError) -> dict[str, Any]:
    """The figures of two processes that take turns.

    Raises:
        RuntimeError: one has failed, now or before.
    """
    if isinstance(first, RuntimeError):
        raise first
    rates: list[list[float]] = [[], []]
    memory = [0.0, 0.0]
    for _ in range(2 if bench.rehearse else LAPS):
        for i, child in enumerate(pair):
            child.connection.send("go")
            rate, size = child.receive(bench.seconds)
            rates[i].append(rate)
            memory[i] = size / 2**20
            child.connection.send("go on")
            child.receive(bench.seconds)
    return {
        "ours": median(rates[0]),
        "by hand": median(rates[1]),
        "share": median(a / b for a, b in zip(*rates, strict=True)),
        "memory": memory,
    }


def write_photos(folder: Path, count: int) -> Path:
    """So many names of a few JPEG files: each is read and decoded for itself."""
    from fixtures import write_images

    write_images(folder, count=min(count, 64), size=256)
    for path in sorted(folder.glob("*/*.jpg")):
        for copy in range(1, count // 64):
            os.link(path, path.with_name(f"{path.stem}_{copy}.jpg"))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=("checks", "steps", "race"))
    parser.add_argument("--record", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    card = device(arguments.rehearse)
    parts = (arguments.only,) if arguments.only else ("steps", "race", "checks")

    folder = Path(tempfile.mkdtemp(prefix="gpu-"))
    sys.path[:0] = [str(HERE), str(ROOT / "tests")]
    from wheels import COMPILED, WANTED, missing, unpack_missing

    site = folder / "site"
    if unpacked := unpack_missing(site):
        print(f"From wheels/: {', '.join(unpacked)}")
        sys.path.insert(0, str(site))
    try:
        if lacking := missing((*WANTED, *COMPILED)):
            sys.exit(
                f"error: benchmarks/gpu needs {', '.join(lacking)}, too, and this Python lacks it: "
                "install it, or call `make wheels` where there is a network and copy the folder "
                f"wheels/ (it takes along {', '.join(WANTED)})"
            )
        from fixtures import write_cifar10

        bench = Bench(folder, arguments.rehearse)
        if not arguments.rehearse:
            os.environ["GPU_END"] = str(time.time() + LAST_START)
        tables: dict[str, Any] = {"steps": {}, "race": []}
        cifar, photos = folder / "cifar", folder / "photos"
        if {"steps", "race"} & {*parts}:
            write_cifar10(cifar, *((10_000, 1_000) if arguments.rehearse else (100_000, 10_000)))
        for part in parts:
            before = time.perf_counter()
            if part == "steps":
                tables["steps"] = look_into_steps(bench, cifar)
            elif part == "race":
                write_photos(photos, 128 if arguments.rehearse else 7_168)
                tables["race"] = compete(bench, cifar, photos)
            else:
                run_checks(bench)
            print(f"{part}: {time.perf_counter() - before:.0f} s", flush=True)
        seconds = time.perf_counter() - started
        failed = [name for name, error in bench.results.items() if error]
        counts = f"{len(bench.results) - len(failed)} passed, {len(failed)} failed"
        print(f"{counts}, {len(bench.left)} left in {seconds:.0f} s")
        import record

        found = record.gather(card, seconds, bench.results, bench.left, tables, PRECISIONS)
        print(record.table([found]))
        if arguments.record and not arguments.rehearse and not arguments.only:
            record.keep(found)
    finally:
        if logs := os.environ.get("GPU_LOGS"):  # a folder for what the processes have printed
            for path in folder.glob("*.log"):
                shutil.copy(path, logs)
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
