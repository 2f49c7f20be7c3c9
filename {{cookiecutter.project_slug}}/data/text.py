"""What text sets share: the text as numbers, cut into windows, split by position."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data.base import Data
from data.text_reading import find_files, read_bytes, read_characters, read_lines
from engine.errors import UserError
from engine.sample_keys import keys_of
from engine.samples import TensorSamples
from engine.sizes import choose_fraction
from engine.splits import Rows

UNKNOWN = "\ufffd"  # stands for characters that are not in the training split


class TextData(Data):
    """Base of the text sets: a subclass says which `files` make up the text.

    The text is cut into windows of `context` units and the one that follows. The last tenth of them
    is the test split, those before it are for validation; folds are pieces of the text. A batch is
    (B, context + 1) bytes (uint8) or code points (int32), which on the device become token ids
    (int64).

    Args:
        context: how many units a model looks back.
        unit: what is predicted: bytes, of any encoding, or characters.
        prompt: a text that `predict` continues; if empty, `predict` measures the test split.
        prompt_file: a file with a prompt in each line.
        length: of what is written, in units.
        temperature: how freely units are drawn; 0: always the most likely one.
        top_k: draw from so many most likely units only.
    """

    test_fraction = 0.1
    evaluation_scale = 1  # logits take much memory: (B, context, vocab_size)

    def __init__(
        self,
        context: int = 128,
        unit: Literal["byte", "character"] = "byte",
        prompt: str | None = "",
        prompt_file: str | None = None,
        length: int = 400,
        temperature: float = 0.8,
        top_k: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        least = {"context": (context, 2), "length": (length, 1), "temperature": (temperature, 0)}
        for name, (value, limit) in (least | {"top_k": (top_k or 1, 1)}).items():
            if not value >= limit:
                raise UserError(f"{name} is {value}: it must be {limit} or more.")
        if prompt is None:  # so YAML, which the command line takes it for, reads "#" and "null"
            raise UserError("prompt reads as null or a comment: write it into --data.prompt_file.")
        self.context, self.unit = context, unit

    def files(self) -> list[Path]:
        """The files of the text, in order."""
        raise NotImplementedError

    def read_files(self, paths: list[Path]) -> Tensor:
        """Bytes (T,) or code points (T,)."""
        return read_bytes(paths) if self.unit == "byte" else read_characters(paths)

    @cached_property
    def text(self) -> Tensor:
        return self.read_files(self.files())

    @cached_property
    def rows(self) -> Rows:
        """The windows of the splits."""
        count = (len(self.text) - 1) // self.context
        rest = count - round(count * self.test_fraction)
        train = rest - max(round(rest * choose_fraction(self, rest)), 1)
        if not 0 < train < rest < count:
            raise UserError(
                f"The text has {len(self.text)} {self.unit}s, too few for windows of "
                f"{self.context} in training, validation and test: take more text, or a smaller "
                "context."
            )
        parts = torch.arange(count).split([train, rest - train, count - rest])
        rows = dict(zip(("train", "val", "test"), parts, strict=True))
        if folds := self.hparams.num_folds:  # each is a piece of the text
            pieces = [*torch.arange(rest).tensor_split(folds)]
            rows["val"] = pieces.pop(self.hparams.fold)
            rows["train"] = torch.cat(pieces)
        return rows

    @cached_property
    def characters(self) -> list[str]:
        """Those of the training split, after one that stands for all others; none for bytes."""
        if self.unit == "byte":
            return []
        try:
            codes = self.windows(self.text).samples[self.rows["train"]].unique()
        except UserError:
            if self.reads_other("predict"):  # the checkpoint knows them
                return []
            raise
        return [UNKNOWN, *(c for c in map(chr, codes.tolist()) if c != UNKNOWN)]

    @property
    def facts(self) -> dict[str, Any]:
        size = 256 if self.unit == "byte" else len(self.characters)
        known = {"context": self.context, "unit": self.unit, "characters": self.characters}
        return {**known, "vocab_size": size}

    def load(self) -> tuple[TensorSamples, Rows]:
        windows = self.windows(self.text)
        if self.unit == "character":
            held = windows.samples[torch.cat([self.rows["val"], self.rows["test"]])].unique()
            if new := {*map(chr, held.tolist())} - {*self.characters}:
                rank_zero_warn(
                    "Characters of the validation and test text that are not in that of the "
                    f"training: {len(new)}, as {min(new)!r}. They count as one, never learned."
                )
        return windows, self.rows

    def split(self, samples: TensorSamples, rows: Rows) -> Rows:
        return rows

    def windows(self, text: Tensor) -> TensorSamples:
        """Views of the text, each of which begins with the last unit of the one before. A rest at
        the end that is shorter than a window is left out."""
        if len(text) <= self.context:
            raise UserError(
                f"The text has {len(text)} {self.unit}s, and a window {self.context + 1}: take "
                "more text."
            )
        return TensorSamples(text.unfold(0, self.context + 1, self.context))

    def preparation(self) -> nn.Module:
        if self.unit == "character" and "train" not in self.splits:
            raise KeyError("train")
        return Tokens(self.characters)

    def reads_other(self, stage: str) -> bool:
        prompts = self.hparams.prompt or self.hparams.prompt_file
        return bool(stage == "predict" and prompts) or super().reads_other(stage)

    def adopt(self, facts: dict[str, Any]) -> None:
        self.context, self.characters = facts["context"], facts["characters"]
        self.unit = facts["unit"]

    def keep(self, facts: dict[str, Any]) -> None:
        if self.unit == "character" and facts["characters"]:
            self.characters = facts["characters"]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if "splits" in state_dict and "test" in self.splits and not self.predicts_other:
            self.tell_repeats(state_dict["splits"]["keys"]["train"])

    def tell_repeats(self, trained: Tensor) -> None:
        """Warns if much of the test split was trained on, whose windows have these keys: what is
        put before a text moves windows and splits, and the keys are others then."""
        first = int(self.rows["test"][0]) * self.context
        last = max(len(self.text) - 2 * self.context, first + 1)
        starts = range(first, last, max((last - first) // 64, 1))
        pieces = [self.text[i : i + 2 * self.context] for i in starts]  # windows at each unit
        shifted = [TensorSamples(piece.unfold(0, self.context + 1, 1)) for piece in pieces]
        keys = torch.stack([keys_of(windows, {}) for windows in shifted])
        seen = int(torch.isin(keys, trained).any(dim=1).sum())
        if 8 * seen > len(starts):
            rank_zero_warn(
                f"{seen} of {len(starts)} places in the test split are text that was trained on: "
                "put new text behind the old one, or start a new fit."
            )

    def read(self, source: str | Path | list[str] | None) -> TensorSamples:
        """The windows of a file or folder; prompts of a list, or of the settings."""
        if not isinstance(source, str | Path | None):
            return self.encode([*source] if isinstance(source, list | tuple) else [source])
        if source:
            if self.hparams.prompt or self.hparams.prompt_file:
                raise UserError(
                    f"predict_dir is {source}, and there is a prompt: give one of both."
                )
            return self.windows(self.read_files(find_files(Path(source).expanduser())))
        prompts = [self.hparams.prompt] if self.hparams.prompt else []
        if self.hparams.prompt_file:
            prompts += read_lines(Path(self.hparams.prompt_file))
        return self.encode(prompts)

    def encode(self, prompts: list[str]) -> TensorSamples:
        """Prompts as samples. A batch is a dict: prompts (B, P), padded after their sizes (B,)."""
        count, by_byte = len(prompts), self.unit == "byte"
        if not (prompts and all(isinstance(prompt, str) and prompt for prompt in prompts)):
            raise UserError(f"{prompts!s:.80} are no prompts: give texts that are not empty.")
        unknown = sorted({*"".join(prompts)} - {*self.characters}) if not by_byte else []
        if unknown:
            rank_zero_warn(f"Characters that are not in the text of the training: {unknown}")
        codes = [torch.tensor([*p.encode()] if by_byte else [*map(ord, p)]) for p in prompts]
        options = {
            "size": torch.tensor([len(one) for one in codes]),
            "length": torch.full((count,), self.hparams.length),
            "temperature": torch.full((count,), float(self.hparams.temperature)),
            "top_k": torch.full((count,), self.hparams.top_k or 0),
        }
        return TensorSamples({"prompt": pad_sequence(codes, True), **options}, names=prompts)


class Tokens(nn.Module):
    """Bytes or code points (B, T) become token ids (B, T), int64; so do the prompts of a dict.

    Args:
        characters: by token id; empty: the ids are bytes.
    """

    ids: Tensor

    def __init__(self, characters: list[str]) -> None:
        super().__init__()
        codes = torch.tensor([ord(character) for character in characters[1:]] or range(256))
        ids = torch.zeros(int(codes.max()) + 2, dtype=torch.int32)  # the last one for all beyond
        ids[codes] = torch.arange(len(codes), dtype=torch.int32) + (1 if characters else 0)
        self.register_buffer("ids", ids)

    def forward(self, batch: Any) -> Any:
        if isinstance(batch, dict):
            return {**batch, "prompt": self(batch["prompt"])}
        return self.ids[batch.long().clamp(max=len(self.ids) - 1)].long()
