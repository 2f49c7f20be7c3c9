"""Two files of a few sentences."""

from pathlib import Path


def write(folder: Path) -> list[str]:
    for name, word in (("one.txt", "naïve"), ("two.txt", "simple")):
        text = "".join(f"{i} {word} {'rivers' if i % 3 else 'hills'}.\n" for i in range(300))
        (folder / name).write_text(text, encoding="utf-8")
    return [f"--data.data_dir={folder}", "--data.context=16"]
