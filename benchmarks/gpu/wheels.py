"""The packages that a machine with torch and Lightning may lack: `python benchmarks/gpu/wheels.py`
downloads them into the folder `wheels/`; benchmarks/gpu takes them from there without a network."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "wheels"
# What the projects need, and what a machine that trains with Lightning has.
WANTED = ("cookiecutter", "jsonargparse", "docstring-parser", "typeshed-client", "torchdata")
THERE = ("torch", "torchvision", "lightning", "tensorboard", "requests", "rich", "pyyaml")
# What the projects that are trained need, too, and is not written in Python alone.
COMPILED = ("matplotlib", "pillow", "pyarrow", "scikit-learn", "torchvision")


def closure(names: tuple[str, ...]) -> set[str]:
    """The distributions of these names and all that they need here, without extras."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            needs = requires(name) or []
        except PackageNotFoundError:  # of another system or Python
            continue
        found.add(name)
        left += [re.split(r"[ ;<>=!~\[(]", need)[0] for need in needs if "extra ==" not in need]
    return found


def download() -> None:
    names = closure(WANTED) - closure(THERE)
    words = [f"{name}=={version(name)}" for name in sorted(names)]
    # Wheels of Python alone serve every system and version.
    kind = ["--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *kind]
    subprocess.run([*pip, "--dest", FOLDER, *words], check=True)
    print(f"{len(words)} wheels in {FOLDER}: {', '.join(words)}")


def missing(requirements: Iterable[str]) -> list[str]:
    """The names of those that are not installed; of which version is not looked at."""
    names = [re.split(r"[<>=!~\[ ]", requirement)[0] for requirement in requirements]
    return [name for name in names if not installed(name)]


def installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def unpack_missing(site: Path) -> list[str]:
    """Unpacks those wheels into `site` whose packages are not installed; names them."""
    unpacked = []
    for wheel in sorted(FOLDER.glob("*.whl")):
        name, number = wheel.name.split("-")[:2]
        if not installed(name):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)
            unpacked.append(f"{name} {number}")
    return unpacked


if __name__ == "__main__":
    download()
