"""One axis of a bilinear resize: which source pixels each output pixel mixes, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class ResizeAxis:
    """Output pixel i is ``(1 − share[i]) · source[first[i]] + share[i] · source[second[i]]``.

    Attributes:
        first: int64 (outputs,), never falling.
        second: int64 (outputs,): the next source pixel, or the last one again.
        share: float64 (outputs,), in [0, 1).
        inputs: source pixels.
    """

    first: Tensor
    second: Tensor
    share: Tensor
    inputs: int

    def matrix(self, start: int, stop: int) -> tuple[int, int, Tensor]:
        """Output pixels ``start`` … ``stop`` − 1 as a matrix: (low, high, float64 (stop − start, high − low)).

        ``low`` … ``high`` − 1 are the source pixels that they mix; the rows sum to 1.
        """
        low, high = int(self.first[start]), int(self.second[stop - 1]) + 1
        weights = torch.zeros(stop - start, high - low, dtype=torch.float64)
        share = self.share[start:stop, None]
        weights.scatter_add_(1, self.first[start:stop, None] - low, 1.0 - share)
        weights.scatter_add_(1, self.second[start:stop, None] - low, share)
        return low, high, weights


@lru_cache(maxsize=64)
def resize_axis(inputs: int, outputs: int, align_corners: bool) -> ResizeAxis:
    """The axis of ``F.interpolate(mode="bilinear")`` from ``inputs`` to ``outputs`` pixels, positions in float64.

    With ``align_corners`` the first and last pixels lie on each other (a single output pixel on the first); without, the
    pixels' edges do, and positions before the first source pixel's centre count as that centre.
    """
    pixels = torch.arange(outputs, dtype=torch.float64)
    if align_corners:
        position = pixels * ((inputs - 1) / (outputs - 1) if outputs > 1 else 0.0)
    else:
        position = ((pixels + 0.5) * (inputs / outputs) - 0.5).clamp(min=0)
    first = position.floor().long().clamp(max=inputs - 1)
    share = (position - first).clamp(max=1.0)
    second = (first + 1).clamp(max=inputs - 1)
    return ResizeAxis(first, second, torch.where(second == first, 0.0, share), inputs)
