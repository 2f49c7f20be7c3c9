"""The source of Python's own standard library, as this Python has it: 11 MB, without a download."""

import hashlib
import re
import sysconfig
from functools import cached_property
from pathlib import Path
from typing import Any

from data.text import TextData
from data.text_reading import read_bytes

# Tests and programs, and what differs between installations.
LEFT_OUT = re.compile(
    r"(^|/)(tests?/|idlelib/|turtledemo/|lib2to3/|\w+-packages/|config-|_sysconfigdata)"
)


class PythonSource(TextData):
    """The modules in the order of their paths, without tests and programs. Each version of Python
    has another text: a checkpoint holds the hash of its own, and is not tested on another."""

    def files(self) -> list[Path]:
        root = Path(sysconfig.get_path("stdlib"))
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
        return [root / name for name in names if not LEFT_OUT.search(name)]

    @cached_property
    def sha256(self) -> str:
        text = self.text if self.unit == "byte" else read_bytes(self.files())
        return hashlib.sha256(text.numpy().tobytes()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "sha256": self.sha256}
