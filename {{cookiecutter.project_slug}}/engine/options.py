"""Options of train.py that are read by other commands, which fit with them."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from engine.cli import CLI, CONFIGS
from engine.errors import UserError
from engine.monitors import choose_monitors
from engine.parsing import OWN
from engine.records import read_record, read_yaml


class Read(Exception):
    """The options are read."""


class Reader(CLI):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        super().parse_arguments(parser, args)
        self.config.fit.seed_everything = False  # each fit sets its own, and says so

    def before_instantiate_classes(self) -> None:
        choose_monitors(self.config.fit)
        raise Read


def set_options(options: list[str]) -> None:
    sys.argv = [str(CONFIGS.with_name("train.py")), "fit", *options]


def read_options(options: list[str]) -> Namespace:
    """All settings of a fit with these options; what is wrong with them is said here."""
    if "--ckpt_path" in {word.split("=")[0] for word in options}:
        raise UserError("--ckpt_path: each fit is a new one; start from --model.init_from")
    set_options(options)
    reader = Reader.__new__(Reader)
    with suppress(Read):
        reader.__init__()  # type: ignore[misc]
    fit = reader.config.fit
    best = fit.best_checkpoint
    if not (best.monitor and best.save_top_k) or fit.trainer.enable_checkpointing is False:
        raise UserError(
            "There would be no best score to compare: leave out best_checkpoint.monitor null, "
            "best_checkpoint.save_top_k 0 and trainer.enable_checkpointing false"
        )
    return fit


def result_of(run: Path) -> dict[str, Any]:
    """What a fit has written down: one in processes of its own leaves no scores in this one."""
    result = [{}, *read_record(run)][-1].get("result", {})
    if "best" not in result:
        raise UserError("this fit saves no best checkpoint, so there is no score to compare")
    return result


def split_words(words: list[str], names: set[str]) -> tuple[list[str], list[str]]:
    """The options of these names, or a --config file that has one as a key; those of train.py."""
    OWN.update(names)
    parts: tuple[list[str], list[str]] = [], []
    part = parts[0]
    for i, word in enumerate(words):
        if word.startswith("-"):
            key, _, value = word.lstrip("-").partition("=")
            own = key.split(".")[0].rstrip("+") in {*names, "h", "help", "print_config"}
            if key == "config":
                file = read_yaml(Path(value or "".join(words[i + 1 : i + 2])))
                own = not isinstance(file, dict) or bool(names & file.keys())
            part = parts[0] if own else parts[1]
        part.append(word)
    return parts
