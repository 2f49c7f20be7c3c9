"""Your own text: UTF-8 files."""

from pathlib import Path
from typing import Any

from data.text import TextData
from data.text_reading import find_files


class TextFiles(TextData):
    """The text of one file, which is memory-mapped, or of all files below a folder, by name.

    Args:
        data_dir: the file or folder.
        pattern: which files in the folder to read, such as ``*.md``. Hidden ones are left out.
    """

    def __init__(self, data_dir: str = "datasets/text", pattern: str = "*", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.pattern = Path(data_dir).expanduser(), pattern

    def files(self) -> list[Path]:
        return find_files(self.root, self.pattern)
