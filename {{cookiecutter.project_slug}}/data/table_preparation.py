"""How a raw row becomes what a network takes, in fit, `predict` and exported files alike."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from data.columns import by_kind


class PrepareTable(nn.Module):
    """(numbers, codes, targets), or a dict of columns by name, becomes ((numbers, codes), targets).

    Numbers (B, N) are standardised; missing ones become 0, and columns that have missing values in
    the training get one more number, 1 where they are missing. Codes of no category become 0, which
    is unknown.

    Args:
        columns: see data/columns.py.
        numbers: of all rows (rows, N).
        rows: the training rows, which give mean and deviation.
    """

    mean: Tensor
    std: Tensor
    lacking: Tensor
    cardinalities: Tensor

    def __init__(self, columns: list[dict[str, Any]], numbers: Tensor, rows: Sequence[int]) -> None:
        super().__init__()
        counted, categories = by_kind(columns)
        self.numbers = [column["name"] for column in counted]
        self.codes = [column["name"] for column in categories]
        lacking = [i for i, column in enumerate(counted) if column["missing"]]
        index = torch.as_tensor(rows, device=numbers.device)
        moments = [self.moments(numbers[:, i][index]) for i in range(len(counted))]
        mean, std, *_ = torch.tensor(moments).view(-1, 4).unbind(1)
        of_columns = zip(counted, moments, strict=True)
        self.ranges = {c["name"]: found[2:] for c, found in of_columns if c["kind"] == "number"}
        self.register_buffer("mean", mean.contiguous())
        self.register_buffer("std", torch.where(std > 0, std, 1.0))
        self.register_buffer("lacking", torch.tensor(lacking).long())
        sizes = [1 + len(column["categories"]) for column in categories]
        self.register_buffer("cardinalities", torch.tensor(sizes).long())

    @staticmethod
    def moments(values: Tensor) -> tuple[float, float, float, float]:
        values = values.cpu().double()
        values = values[values.isfinite()]
        if not len(values):  # maybe in an evaluation, where the checkpoint's are loaded later
            return 0.0, 1.0, -torch.inf, torch.inf
        low, high = values.aminmax()
        return values.mean().item(), values.std(correction=0).item(), low.item(), high.item()

    def tell_others(self, numbers: Tensor, source: str) -> None:
        """Warns of columns of numbers (rows, N) that are most unlike those of the training."""
        for name, values in zip(self.numbers, numbers.unbind(1), strict=True):
            low, high = self.ranges.get(name, (-torch.inf, torch.inf))
            known = values[values.isfinite()]
            if len(known) and not low <= known.median() <= high:
                rank_zero_warn(
                    f"{source}: most of {name} lies outside of the {low:g} to {high:g} of the "
                    "training: is it in the same unit?"
                )

    def forward(self, batch: Any) -> Any:
        numbers, codes, targets = self.stack(batch) if isinstance(batch, dict) else batch
        known = numbers.isfinite()
        scaled = torch.where(known, (numbers - self.mean) / self.std, 0.0)
        missing = (~known).index_select(1, self.lacking).to(scaled.dtype)
        codes = torch.where(codes < self.cardinalities, codes, 0).clamp(min=0)
        return (torch.cat([scaled, missing], dim=1), codes), targets

    def places(self, column: int) -> list[int]:
        """The places of a column among the prepared numbers."""
        lacking = self.lacking.tolist()
        extra = [len(self.numbers) + lacking.index(column)] if column in lacking else []
        return [column, *extra]

    def stack(self, columns: dict[str, Tensor]) -> tuple[Tensor, Tensor, None]:
        """Columns (B,) by name; the targets are not among them."""
        like = next(iter(columns.values()))
        numbers = [columns[name].float() for name in self.numbers]
        codes = [columns[name].long() for name in self.codes]
        empty = like.new_zeros(like.shape[0], 0)
        return (
            torch.stack(numbers, dim=1) if numbers else empty.float(),
            torch.stack(codes, dim=1) if codes else empty.long(),
            None,
        )
