"""How far a pixel lies from the border between two classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.regions import Bools, Integers


def border_pixels(labels: Integers, ignore_index: int) -> Bools:
    """(H, W): pixels beside one of another class, up, down, left or right; what is ignored makes no border."""
    border = np.zeros(labels.shape, dtype=bool)
    known = labels != ignore_index
    for first, second in (((slice(None), slice(1, None)), (slice(None), slice(-1))), ((slice(1, None),), (slice(-1),))):
        differs = (labels[first] != labels[second]) & known[first] & known[second]
        border[first] |= differs
        border[second] |= differs
    return border


def squared_distance(targets: Bools, limit: int) -> npt.NDArray[np.int32]:
    """Exact squared Euclidean distance to the nearest target pixel, between pixel centres.

    First along the columns, then the smallest sum over the columns within reach: only that far, so it costs 2 · ``limit``
    passes over the image.

    Args:
        targets: (H, W).
        limit: pixels; what lies further away is not told apart.

    Returns:
        int32 (H, W); (limit + 1)² where no target lies within ``limit``.
    """
    height, width = targets.shape
    rows = np.arange(height, dtype=np.int32)[:, None]
    far = height + limit + 1
    above = np.maximum.accumulate(np.where(targets, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(targets, rows, height + far)[::-1], axis=0)[::-1]
    vertical = np.minimum(np.minimum(rows - above, below - rows), limit + 1).astype(np.int32) ** 2
    nearest = vertical.copy()
    for step in range(1, min(limit, width - 1) + 1):
        np.minimum(nearest[:, step:], vertical[:, :-step] + step * step, out=nearest[:, step:])
        np.minimum(nearest[:, :-step], vertical[:, step:] + step * step, out=nearest[:, :-step])
    nearest[nearest > limit * limit] = (limit + 1) ** 2
    return nearest
