"""Two files of a few sentences, in which nothing stands twice."""

from pathlib import Path


def write(folder: Path) -> list[str]:
    for name, word, first in (("one.txt", "naïve", 0), ("two.txt", "simple", 300)):
        numbers = range(first, first + 300)
        text = "".join(f"{i} {word} {i * i} {'rivers' if i % 3 else 'hills'}.\n" for i in numbers)
        (folder / name).write_text(text, encoding="utf-8")
    return [f"--data.data_dir={folder}", "--data.context=16"]
