"""Weights for the pixels along the borders between classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError, UserError


@torch.no_grad()
def boundary_weight(
    labels: Tensor, *, weight: float, width: int = 1, ignore_index: int = 255, background: int | None = None
) -> Tensor:
    """``weight`` at pixels that have a pixel of another class within ``width`` rows and columns, 1 elsewhere.

    Neither the image's edge nor a border with ignored pixels is a boundary; ignored pixels have 1.

    Args:
        labels: (N, H, W) integer ids.
        weight: factor of the pixels at a boundary, ≥ 0.
        width: how far a boundary reaches to either side, in pixels (Chebyshev distance), ≥ 1.
        ignore_index: label that counts nowhere.
        background: a class that has no boundaries, for boundaries between objects only: it is treated as pixels that are
            ignored. None: all classes have.

    Returns:
        float32 (N, H, W), on the labels' device; for the ``pixel_weight`` of a loss.

    Raises:
        DataError: for labels that are not (N, H, W) integers.
        UserError: for a weight or width that cannot be.
    """
    if labels.ndim != 3 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and dtype {labels.dtype}", expected="integer (N, H, W)"
        )
    if not 0.0 <= weight < math.inf:
        raise UserError(f"the weight of boundaries is {weight}", expected="a number from 0 on")
    if width < 1:
        raise UserError(f"the width of boundaries is {width}", expected="1 pixel or more")
    # Small unsigned types hold no −1, and do not compare with every id.
    ids = labels if labels.dtype == torch.int64 else labels.to(torch.int32)
    skipped = ids == ignore_index
    if background is not None:
        skipped |= ids == background
    limits = torch.iinfo(ids.dtype)
    # A window holds one class only if the largest and the smallest id in it are the pixel's own.
    same = _largest_around(ids.masked_fill(skipped, limits.min), width) == ids
    same &= ~_largest_around(~ids.masked_fill(skipped, limits.max), width) == ids
    return torch.where(same | skipped, 1.0, float(weight))


def _largest_around(ids: Tensor, width: int) -> Tensor:
    """The largest of (N, H, W) integers within ``width`` rows and columns, ``width`` times within one of them."""
    # Not max_pool2d: it pools floats, and on a CPU takes more than ten times as long.
    for axis in (1, 2):
        length = ids.shape[axis] - 1
        for _ in range(min(width, length)):
            wider = ids.clone()
            lower, upper = wider.narrow(axis, 0, length), wider.narrow(axis, 1, length)
            torch.maximum(lower, ids.narrow(axis, 1, length), out=lower)
            torch.maximum(upper, ids.narrow(axis, 0, length), out=upper)
            ids = wider
    return ids
