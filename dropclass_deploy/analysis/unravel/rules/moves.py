"""Operators that only move elements.

Two are so frequent, and their results so large, that the index is computed; what the others do to the values is done to the
values' indices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.tape import Step, Tape, Value

Moved = list[tuple[Value, Points]]

_NOWHERE = -1.0


def same_order(step: Step, points: Points, tape: Tape) -> Moved:
    """Another shape over the same elements in the same order: the flat index stays."""
    del tape
    return [(step.inputs()[0], points)]


def concatenated(step: Step, points: Points, tape: Tape) -> Moved:
    """Tensors one after another along a dimension: to the one whose part of it holds the place; constants have no place."""
    del tape
    shape = step.output.shape
    dim = step.arguments.get("dim", 0) % len(shape)
    inner = math.prod(shape[dim + 1 :])
    at = points.index // inner % shape[dim]
    outer = points.index // (inner * shape[dim])
    back: Moved = []
    end = 0
    # PyTorch passes over empty tensors of one dimension, whatever the shape of the others.
    for one in (one for one in step.arguments["tensors"] if tuple(one.shape) != (0,)):
        size = one.shape[dim]
        start, end = end, end + size
        if isinstance(one, Value):
            place = (outer * size + at - start) * inner + points.index % inner
            own = (at >= start) & (at < end)
            back.append((one, points.where(own).moved(place[own])))
    return back


def moved(step: Step, points: Points, tape: Tape) -> Moved:
    """Permutations, slices, stacking, padding, nearest resizing: back to where each element came from.

    A point in the padding, or in a constant, ends.
    """
    del tape
    device = points.index.device
    starts: dict[int, int] = {}
    total = 0
    for one in step.inputs():
        if one.id not in starts:
            starts[one.id] = total
            total += math.prod(one.shape)

    def indices(one: object) -> object:
        # As float64, exact up to 2⁵³: resizing and reflecting operators take no integers.
        if isinstance(one, Value):
            begin = starts[one.id]
            count = math.prod(one.shape)
            return torch.arange(begin, begin + count, dtype=torch.float64, device=device).reshape(one.shape)
        if isinstance(one, Tensor) and one.is_floating_point():
            return torch.full_like(one, _NOWHERE, dtype=torch.float64)
        return one

    arguments = tree_map(indices, step.arguments)
    if step.name == "constant_pad_nd":
        arguments["value"] = _NOWHERE
    result = step.function(**arguments)
    whole = result[step.which] if isinstance(result, tuple | list) else result
    came_from = whole.reshape(-1)[points.index].long()
    back: Moved = []
    for one in {value.id: value for value in step.inputs()}.values():
        begin = starts[one.id]
        own = (came_from >= begin) & (came_from < begin + math.prod(one.shape))
        back.append((one, points.where(own).moved(came_from[own] - begin)))
    return back
