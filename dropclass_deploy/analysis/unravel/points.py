"""Places in a tensor that are followed back, each with how often and in which direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Distinct places of one tensor.

    Attributes:
        index: int64 (P,), places in the tensor's elements, in C order of its shape.
        sign: int64 (P,), 1 where what raised the value is looked for, −1 where what lowered it is.
        count: int64 (P,), how many of the followed pixels came to the place.
    """

    index: Tensor
    sign: Tensor
    count: Tensor

    @classmethod
    def starting_at(cls, index: Tensor) -> Self:
        """One point a place, counted once, looking for what raised it."""
        ones = torch.ones_like(index)
        return cls(index, ones, ones)

    @property
    def total(self) -> int:
        """The counts' sum."""
        return int(self.count.sum())

    def moved(self, index: Tensor, sign: Tensor | None = None) -> Points:
        """The same points elsewhere; those with a negative index, or a sign of 0, end."""
        sign = self.sign if sign is None else sign
        alive = (index >= 0) & (sign != 0)
        return Points(index[alive], sign[alive], self.count[alive])

    def where(self, flags: Tensor) -> Points:
        """Some of them."""
        return Points(self.index[flags], self.sign[flags], self.count[flags])


def merged(parts: Sequence[Points]) -> Points:
    """All points, those of one place and direction as one."""
    if len(parts) == 1 and parts[0].index.numel() == 0:
        return parts[0]
    index, sign, count = (torch.cat([getattr(part, name) for part in parts]) for name in ("index", "sign", "count"))
    keys, place = torch.unique(2 * index + (sign > 0), return_inverse=True)
    counts = torch.zeros_like(keys).index_add_(0, place, count)
    return Points(keys // 2, 2 * (keys % 2) - 1, counts)
