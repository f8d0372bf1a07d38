"""The losses of resized logits in plain torch, a band of label rows at a time: what runs on a CPU.

Resizing is separable: along the width by torch's own kernel, on the few small rows that a band of label rows mixes; along
the height by a product with a narrow matrix. The band's full-size logits lie in the processor's cache, become
probabilities and then the gradient in place, and go back to the small grid through the same two steps transposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.training.losses.resize_axis import ResizeAxis, resize_axis

_BAND_BYTES = 4 * 2**20
"""Of a band's logits: larger ones fall out of the cache, smaller ones cost more in calls than they compute."""


@dataclass(frozen=True)
class _Head:
    """What ``head_losses`` was given, checked against nothing: see there."""

    weight: Tensor
    pixel_weight: Tensor | None
    scale: Tensor
    suppressed: int
    ignore_index: int
    align_corners: bool
    with_gradient: bool


@dataclass(frozen=True)
class _Band:
    """Images ``images`` and label rows ``rows``, which mix the small rows ``source`` by ``mix`` (None: the same rows)."""

    images: slice
    rows: slice
    source: slice
    mix: Tensor | None


def head_losses(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    pixel_weight: Tensor | None,
    scale: Tensor,
    suppressed: int,
    ignore_index: int,
    align_corners: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and suppression of one head, as sums over label pixels, with their gradient.

    L are the logits resized bilinearly to the labels' size; nothing of that size is ever held.

    Args:
        logits: (N, C, h, w), any floating dtype; computed in float32, or float64 for float64.
        labels: (N, H, W) integer ids in [0, C) or ``ignore_index``.
        weight: (C,) of the class of a pixel in the cross-entropy; 0 leaves it out.
        pixel_weight: (N, H, W) factor of a pixel's cross-entropy, or None.
        scale: (2,) factors of the two sums in what is differentiated.
        suppressed: z, or −1: the second sum is then 0.
        ignore_index: label that counts nowhere.
        align_corners: of the resize.
        with_gradient: whether the gradient is wanted.

    Returns:
        float64 (2,): Σ weight[y] · pixel_weight · (−log softmax(L)[y]) and Σ softmax(L)[z], both over the pixels that are not
        ignored; and ∂(scale · sums)/∂logits (N, C, h, w), float32 or float64, or empty (0,).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    small = logits.to(dtype, memory_format=torch.contiguous_format)
    gradient = torch.zeros_like(small) if with_gradient else small.new_empty(0)
    sums = torch.zeros(2, dtype=torch.float64, device=small.device)
    options = _Head(
        weight.to(dtype), pixel_weight, scale.to(dtype), suppressed, ignore_index, align_corners, with_gradient
    )
    for band in _bands(small, labels, align_corners):
        _add_band(small, labels, options, band, sums, gradient)
    return sums, gradient


def _bands(small: Tensor, labels: Tensor, align_corners: bool) -> Iterator[_Band]:
    """Bands of about ``_BAND_BYTES``: several small images at a time, or rows of a large one."""
    count, classes, height, _ = small.shape
    rows, columns = labels.shape[-2:]
    a_row = max(1, classes * columns * small.element_size())
    images = max(1, _BAND_BYTES // (a_row * max(1, rows)))
    # Never less than what four small rows give: each band resizes the rows at both its ends once more.
    step = min(rows, max(_BAND_BYTES // a_row, 4 * -(-rows // height), 1))
    axis = None if height == rows else resize_axis(height, rows, align_corners)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        source, mix = _source(axis, start, stop, small)
        for first in range(0, count, images):
            yield _Band(slice(first, first + images), slice(start, stop), source, mix)


def _source(axis: ResizeAxis | None, start: int, stop: int, like: Tensor) -> tuple[slice, Tensor | None]:
    if axis is None:
        return slice(start, stop), None
    low, high, weights = axis.matrix(start, stop)
    return slice(low, high), weights.to(like)


def _add_band(small: Tensor, labels: Tensor, options: _Head, band: _Band, sums: Tensor, gradient: Tensor) -> None:
    """Add one band's share to the sums and the gradient, both in place."""
    values = _resized(small[band.images, :, band.source], band.mix, labels.shape[-1], options.align_corners)
    ids, valid, factor = _label_factors(labels, options, band)
    # Shifted by the largest logit of the pixel, exp never overflows and the sum is at least 1.
    values -= values.amax(dim=1, keepdim=True)
    truth = values.gather(1, ids)
    total = values.exp_().sum(dim=1, keepdim=True)
    sums[0] += ((total.log() - truth) * factor).sum(dtype=torch.float64)
    slope = options.scale[0] * factor
    push = None
    if options.suppressed >= 0:
        z = options.suppressed
        probability = values[:, z : z + 1] / total * valid
        sums[1] += probability.sum(dtype=torch.float64)
        push = options.scale[1] * probability
    if options.with_gradient:
        share = slope if push is None else slope - push
        values *= share / total
        values.scatter_add_(1, ids, -slope)
        if push is not None:
            values[:, z : z + 1] += push
        width = small.shape[-1]
        gradient[band.images, :, band.source] += _gathered(values, band.mix, width, options.align_corners)


def _label_factors(labels: Tensor, options: _Head, band: _Band) -> tuple[Tensor, Tensor, Tensor]:
    """A band's class ids (0 where ignored), whether each counts, and its factor in the cross-entropy; (n, 1, rows, W)."""
    ids = labels[band.images, None, band.rows].long()
    valid = ids != options.ignore_index
    ids = ids * valid
    factor = options.weight[ids] * valid
    if options.pixel_weight is not None:
        factor *= options.pixel_weight[band.images, None, band.rows]
    return ids, valid, factor


def _resized(rows: Tensor, mix: Tensor | None, width: int, align_corners: bool) -> Tensor:
    """Small rows (n, C, r, w) at the labels' resolution: (n, C, R, W), a tensor of its own."""
    wide = rows
    if rows.shape[-1] != width:
        wide = F.interpolate(rows, size=(rows.shape[-2], width), mode="bilinear", align_corners=align_corners)
    if mix is not None:
        return torch.matmul(mix, wide)
    return wide.clone() if wide is rows else wide


def _gathered(values: Tensor, mix: Tensor | None, width: int, align_corners: bool) -> Tensor:
    """``_resized`` transposed: (n, C, R, W) → (n, C, r, w)."""
    wide = values if mix is None else torch.matmul(mix.t(), values)
    if wide.shape[-1] == width:
        return wide
    sizes = [*wide.shape[:2], wide.shape[2], width]
    gathered: Tensor = torch.ops.aten.upsample_bilinear2d_backward(
        wide.contiguous(), list(wide.shape[-2:]), sizes, align_corners
    )
    return gathered
