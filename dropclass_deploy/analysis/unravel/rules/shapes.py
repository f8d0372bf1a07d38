"""Flat indices and the coordinates that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BUDGET = 2**23
"""Elements of the largest table that a rule builds at once: 32 MiB of float32."""


def coordinates(index: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """One (P,) tensor a dimension of ``shape``."""
    result = []
    for size in reversed(shape):
        result.append(index % size)
        index = index // size
    return tuple(reversed(result))


def broadcast_back(index: Tensor, shape: Sequence[int], source: Sequence[int]) -> Tensor:
    """Places in a tensor of shape ``source`` that broadcasting laid over these places of ``shape``."""
    own = torch.zeros_like(index)
    stride = 1
    for place, size in zip(reversed(coordinates(index, shape)), reversed(source), strict=False):
        own = own + (place % size) * stride
        stride *= size
    return own


def element_of(other: object, index: Tensor, shape: Sequence[int]) -> Tensor:
    """float (P,): what a constant (a number, or a tensor that is broadcast) has at places of ``shape``."""
    if isinstance(other, Tensor):
        # A constant without dimensions may lie on the CPU while the network does not.
        return other.to(index.device).reshape(-1)[broadcast_back(index, shape, other.shape)]
    return torch.full(index.shape, float(other), device=index.device)  # type: ignore[arg-type]


def chunks(points: int, width: int) -> list[slice]:
    """Slices of so many points, each with ``width`` elements, within the budget."""
    size = max(1, BUDGET // max(1, width))
    return [slice(start, start + size) for start in range(0, points, size)]


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or one each."""
    given = [value] if isinstance(value, int) else list(value)
    return (given[0], given[0]) if len(given) == 1 else (given[0], given[1])


def plane(shape: Sequence[int]) -> int:
    """Elements of a map, the last two dimensions."""
    return math.prod(shape[-2:])
