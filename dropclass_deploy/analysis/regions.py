"""Connected regions of a mask, in numpy: the runs of its rows are joined, not its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

OUTSIDE = -1


def label_regions(values: Integers | Bools, keep: Bools) -> tuple[Labels, int]:
    """Regions of equal value, 8-connected: thin diagonal things such as poles stay whole.

    Args:
        values: (H, W), what a region has in common.
        keep: (H, W), the pixels that belong to any region.

    Returns:
        int64 (H, W), region numbers from 0 in the order of their first pixels, −1 where not kept; and how many regions.
    """
    runs, count = _runs(values, keep)
    roots = _roots(count, _touching(runs, values, keep))
    used = np.unique(roots[runs[keep]])
    numbers = np.full(count, OUTSIDE, dtype=np.int64)
    numbers[used] = np.arange(len(used))
    return np.where(keep, numbers[roots][runs], OUTSIDE), len(used)


def boxes_of(labels: Labels, count: int) -> npt.NDArray[np.int64]:
    """int64 (count, 4): top, left, bottom, right of each region; bottom and right lie just outside it."""
    boxes = np.empty((count, 4), dtype=np.int64)
    boxes[:, :2], boxes[:, 2:] = max(labels.shape), 0
    rows, columns = np.nonzero(labels != OUTSIDE)
    regions = labels[rows, columns]
    for place, values in ((0, rows), (1, columns)):
        np.minimum.at(boxes[:, place], regions, values)
        np.maximum.at(boxes[:, place + 2], regions, values + 1)
    return boxes


def opened(mask: Bools) -> Bools:
    """Morphological opening by 3×3: what is thinner than three pixels disappears, the rest keeps its outline.

    Outside the picture counts as set, so that nothing is worn off at its edge.
    """
    eroded = np.logical_and.reduce(_neighbours(mask, outside=True))
    result: Bools = np.logical_or.reduce(_neighbours(eroded, outside=False)) & mask
    return result


def _neighbours(mask: Bools, *, outside: bool) -> list[Bools]:
    """The nine pixels around each, itself among them."""
    padded = np.pad(mask, 1, constant_values=outside)
    height, width = mask.shape
    return [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]


def _runs(values: Integers | Bools, keep: Bools) -> tuple[Labels, int]:
    """Number every pixel by its run: neighbours in a row with the same value, all kept or all not."""
    starts = np.ones(values.shape, dtype=bool)
    starts[:, 1:] = (values[:, 1:] != values[:, :-1]) | (keep[:, 1:] != keep[:, :-1])
    numbers = np.cumsum(starts.ravel()).reshape(values.shape) - 1
    return numbers, int(numbers[-1, -1]) + 1 if numbers.size else 0


def _touching(runs: Labels, values: Integers | Bools, keep: Bools) -> tuple[Labels, Labels]:
    """Pairs of runs of one region in neighbouring rows, straight below or diagonally; some come more than once."""
    width = runs.shape[1]
    pairs = []
    for shift in (-1, 0, 1):
        upper = slice(max(0, -shift), width - max(0, shift))
        lower = slice(max(0, shift), width + min(0, shift))
        joined = keep[:-1, upper] & keep[1:, lower] & (values[:-1, upper] == values[1:, lower])
        both = np.stack([runs[:-1, upper][joined], runs[1:, lower][joined]])
        # Two runs touch in a row of pixels: the first of them is enough.
        pairs.append(both[:, np.append(True, (both[:, 1:] != both[:, :-1]).any(axis=0))[: both.shape[1]]])
    one, other = np.concatenate(pairs, axis=1)
    return one, other


def _roots(count: int, pairs: tuple[Labels, Labels]) -> Labels:
    """The lowest run of each run's region: hook the larger root to the smaller one, then jump to the roots, until quiet."""
    parents = np.arange(count)
    while True:
        one, other = parents[pairs[0]], parents[pairs[1]]
        apart = one != other
        if not apart.any():
            return parents
        one, other = one[apart], other[apart]
        np.minimum.at(parents, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(parents, above := parents[parents]):
            parents = above
