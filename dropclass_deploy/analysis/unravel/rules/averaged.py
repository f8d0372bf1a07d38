"""Pooling, means and bilinear resizing: weights that are all positive, so that something always contributes most.

The strongest is followed also where all of them are negative; of the corners of a resize then the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules.shapes import chunks, coordinates, pair, plane
from dropclass_deploy.analysis.unravel.tape import Step, Tape, Value
from dropclass_deploy.core.errors import ModelError

Moved = list[tuple[Value, Points]]


def max_pool(step: Step, points: Points, tape: Tape) -> Moved:
    """To the place that was the largest: the operator says which."""
    del tape
    source = step.inputs()[0]
    if step.aside is None:
        raise ModelError("a max pooling does not say which place was largest", expected="indices")
    own = step.aside.reshape(-1)[points.index]
    return [(source, points.moved(points.index // plane(step.output.shape) * plane(source.shape) + own))]


def average_pool(step: Step, points: Points, tape: Tape) -> Moved:
    """To the strongest place of the window; what of it lies in the padding never wins."""
    given = step.arguments
    source = given["self"]
    kernel = pair(given["kernel_size"])
    stride = pair(given.get("stride") or kernel)
    padding = pair(given.get("padding") or 0)
    *_, row, column = coordinates(points.index, step.output.shape)
    starts = [place * move - pad for place, move, pad in zip((row, column), stride, padding, strict=True)]
    ends = [start + size for start, size in zip(starts, kernel, strict=True)]
    return [(source, _strongest_in(source, starts, ends, points, step.output.shape, tape))]


def adaptive_pool(step: Step, points: Points, tape: Tape) -> Moved:
    """To the strongest place of the window ⌊i·H/h⌋ … ⌈(i+1)·H/h⌉."""
    source = step.arguments["self"]
    *_, row, column = coordinates(points.index, step.output.shape)
    starts, ends = [], []
    for place, size, own in zip((row, column), source.shape[-2:], step.output.shape[-2:], strict=True):
        starts.append(place * size // own)
        ends.append(-(-((place + 1) * size) // own))
    return [(source, _strongest_in(source, starts, ends, points, step.output.shape, tape))]


def reduction(step: Step, points: Points, tape: Tape) -> Moved:
    """A mean, sum or maximum over dimensions: to the strongest of the elements."""
    source = step.arguments["self"]
    dims = step.arguments.get("dim")
    dims = range(len(source.shape)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    gone = sorted(dim % len(source.shape) for dim in dims)
    kept = [dim for dim in range(len(source.shape)) if dim not in gone]
    strides = _strides(source.shape)
    at = coordinates(points.index, [source.shape[dim] for dim in kept])
    base = sum((place * strides[dim] for place, dim in zip(at, kept, strict=True)), torch.zeros_like(points.index))
    offsets = torch.zeros(1, dtype=torch.int64, device=points.index.device)
    for dim in gone:
        steps = torch.arange(source.shape[dim], device=offsets.device) * strides[dim]
        offsets = (offsets[:, None] + steps).flatten()
    elements = tape.elements(source)
    # A maximum passes its largest element on, whatever is wanted of it.
    sign = torch.ones_like(points.sign) if step.name == "amax" else points.sign
    found = []
    for some in chunks(base.numel(), offsets.numel()):
        places = base[some, None] + offsets
        best = (elements[places] * sign[some, None]).argmax(dim=1)
        found.append(places.gather(1, best[:, None])[:, 0])
    return [(source, points.moved(torch.cat(found)) if found else points)]


def bilinear(step: Step, points: Points, tape: Tape) -> Moved:
    """To the strongest of the four corners; where none speaks for the value, to the nearest."""
    given = step.arguments
    source = step.inputs()[0]
    scales = given.get("scale_factors") or (given.get("scales_h"), given.get("scales_w"))
    *_, row, column = coordinates(points.index, step.output.shape)
    corners, shares = [], []
    for place, size, own, scale in zip((row, column), source.shape[-2:], step.output.shape[-2:], scales, strict=True):
        low, share = _source(place, size, own, scale, given["align_corners"])
        corners.append(torch.stack([low, (low + 1).clamp(max=size - 1)], dim=1))
        shares.append(torch.stack([1 - share, share], dim=1))
    start = points.index // plane(step.output.shape) * plane(source.shape)
    flat = (start[:, None, None] + corners[0][:, :, None] * source.shape[-1] + corners[1][:, None, :]).flatten(1)
    weights = (shares[0][:, :, None] * shares[1][:, None, :]).flatten(1)  # (P, 4)
    products = tape.elements(source)[flat] * weights * points.sign[:, None]
    best, strongest = products.max(dim=1)
    own_corner = torch.where(best > 0, strongest, weights.argmax(dim=1))
    return [(source, points.moved(flat.gather(1, own_corner[:, None])[:, 0]))]


def _source(place: Tensor, size: int, own: int, scale: float | None, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The lower source row or column of each place, int64, and the share of the one after it, float64."""
    at = place.double()
    if align_corners:
        at = at * ((size - 1) / (own - 1) if own > 1 else 0.0)
    else:
        at = ((at + 0.5) * (1 / scale if scale else size / own) - 0.5).clamp(min=0)
    low = at.floor().long().clamp(max=size - 1)
    return low, (at - low).clamp(0, 1)


def _strongest_in(
    source: Value,
    starts: Sequence[Tensor],
    ends: Sequence[Tensor],
    points: Points,
    shape: tuple[int, ...],
    tape: Tape,
) -> Points:
    """To the strongest place of each point's own window [start, end) on the map."""
    height, width = source.shape[-2:]
    steps = [int((end - start).max()) if len(start) else 0 for start, end in zip(starts, ends, strict=True)]
    base = points.index // plane(shape) * (height * width)
    elements, found = tape.elements(source), []
    for some in chunks(base.numel(), steps[0] * steps[1]):
        rows, columns = (
            start[some, None] + torch.arange(size, device=start.device)
            for start, size in zip(starts, steps, strict=True)
        )
        inside = [
            (at >= 0) & (at < end[some, None]) & (at < size)
            for at, end, size in zip((rows, columns), ends, (height, width), strict=True)
        ]
        seen = (inside[0][:, :, None] & inside[1][:, None, :]).flatten(1)
        flat = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        places = base[some, None] + flat.flatten(1)
        values = (elements[places] * points.sign[some, None]).masked_fill(~seen, -torch.inf)
        found.append(places.gather(1, values.argmax(dim=1)[:, None])[:, 0])
    return points.moved(torch.cat(found)) if found else points


def _strides(shape: Sequence[int]) -> list[int]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return strides[::-1]
