"""From logits at one size to the mask at another: bilinear, then the argmax, in bounded memory.

The interpolation is the one of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``: pixel centres
at halves, source coordinates clamped to the edge. It is separable, so that a strip of output rows is made of the few
input rows it needs, and the full-size logits never exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

STRIP_BYTES = 16 * 2**20
"""Logits of one strip: fits the caches of a server CPU and is large enough for NumPy's overhead not to matter."""


@dataclass(frozen=True)
class _Axis:
    """Where each output position reads: (1 − weight) · source[low] + weight · source[high]."""

    low: npt.NDArray[np.intp]
    high: npt.NDArray[np.intp]
    weight: Floats


def logits_to_mask(logits: npt.NDArray[np.floating[Any]], size: tuple[int, int]) -> Mask:
    """Class ids at ``size`` of logits at their own size.

    Args:
        logits: float (C, h, w), C from 1 to 255.
        size: (H, W) of the mask, in pixels.

    Returns:
        uint8 (H, W); exact ties go to the lowest id.
    """
    planes = np.asarray(logits, dtype=np.float32)
    if planes.shape[1:] == size:
        return argmax_of_classes(planes)
    height, width = size
    rows, columns = _axis(planes.shape[1], height), _axis(planes.shape[2], width)
    step = max(1, STRIP_BYTES // (planes.shape[0] * width * planes.itemsize))
    mask: Mask = np.empty(size, dtype=np.uint8)
    # Infinite logits make NaN here; whoever must not accept them (the parity gate) looks at the logits themselves.
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, height, step):
            strip = slice(start, min(start + step, height))
            mask[strip] = argmax_of_classes(_strip(planes, rows, columns, strip))
    return mask


def resized_logits(logits: Floats, size: tuple[int, ...]) -> Floats:
    """Logits float32 (C, h, w) at ``size`` = (H, W): the whole array (C, H, W)."""
    height, width = size
    with np.errstate(invalid="ignore", over="ignore"):
        return _strip(logits, _axis(logits.shape[1], height), _axis(logits.shape[2], width), slice(0, height))


def argmax_of_classes(logits: Floats) -> Mask:
    """Class of the largest logit along the first axis, uint8; exact ties go to the lowest id."""
    # One comparison a class on whole planes: NumPy's argmax over a leading axis walks memory across the planes.
    best = logits[0].copy()
    winner: Mask = np.zeros(best.shape, dtype=np.uint8)
    for index in range(1, logits.shape[0]):
        above = logits[index] > best
        np.copyto(best, logits[index], where=above)
        np.copyto(winner, np.uint8(index), where=above)
    return winner


def _axis(source: int, target: int) -> _Axis:
    centres = (np.arange(target, dtype=np.float64) + 0.5) * (source / target) - 0.5
    position = np.clip(centres, 0.0, source - 1.0)
    low = np.floor(position).astype(np.intp)
    return _Axis(low, np.minimum(low + 1, source - 1), (position - low).astype(np.float32))


def _strip(planes: Floats, rows: _Axis, columns: _Axis, strip: slice) -> Floats:
    """Logits (C, rows of the strip, W)."""
    low, high, weight = rows.low[strip], rows.high[strip], rows.weight[strip, None]
    needed, places = np.unique(np.concatenate([low, high]), return_inverse=True)
    wide = _blend(planes[:, needed], columns.low, columns.high, columns.weight, axis=2)
    return _blend(wide, places[: len(low)], places[len(low) :], weight, axis=1)


def _blend(values: Floats, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp], weight: Floats, axis: int) -> Floats:
    above = np.take(values, high, axis=axis)
    above *= weight
    below = np.take(values, low, axis=axis)
    below *= np.float32(1.0) - weight
    below += above
    return below
