"""The losses of resized logits in plain torch, a tile of label pixels at a time: what runs on a CPU.

A bilinear resize is a product with a narrow matrix along each axis. A tile's full-size logits lie in the processor's cache,
become probabilities and then the gradient in place, and go back to the small grid through the same two products transposed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dropclass_deploy.training.losses.resize_axis import resize_axis

_TILE_BYTES = 4 * 2**20
"""Of a tile's logits: larger ones fall out of the cache, smaller ones cost more in calls than they compute."""
_GPU_TILE_BYTES = 128 * 2**20
"""Off the CPU, where no kernels of our own run: there is no such cache to stay in, and every call is a launch."""
_SMALL_COLUMNS = 24
"""That a tile's columns mix: the resize along a row costs two operations each a pixel, and as a product wants some."""


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
class _Span:
    """Label pixels ``pixels`` of one axis, which mix the small ones ``source`` by ``mix``; None where they are the same."""

    pixels: slice
    source: slice
    mix: Tensor | None


@dataclass(frozen=True)
class _Tile:
    """What is worked on at a time."""

    images: slice
    rows: _Span
    columns: _Span


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
    for tile in _tiles(small, labels, align_corners):
        _add_tile(small, labels, options, tile, sums, gradient)
    return sums, gradient


def _tiles(small: Tensor, labels: Tensor, align_corners: bool) -> Iterator[_Tile]:
    """Tiles of about ``_TILE_BYTES``, four times that at most: columns that mix some small ones, then rows, then images."""
    target = _TILE_BYTES if small.device.type == "cpu" else _GPU_TILE_BYTES
    count, classes, height, width = small.shape
    rows, columns = labels.shape[-2:]
    breadth = min(columns, max(1, _SMALL_COLUMNS * columns // width)) if columns != width else columns
    a_row = max(1, classes * breadth * small.element_size())
    # Rather the rows that four small ones give than fewer: each tile resizes those at both its ends once more.
    wanted = max(target // a_row, min(4 * -(-rows // height), 4 * target // a_row))
    step = max(1, min(rows, wanted))
    images = max(1, target // (a_row * max(1, rows)))
    across = list(_spans(width, columns, breadth, align_corners, small))
    for down in _spans(height, rows, step, align_corners, small):
        for first in range(0, count, images):
            for span in across:
                yield _Tile(slice(first, first + images), down, span)


def _spans(inputs: int, outputs: int, length: int, align_corners: bool, like: Tensor) -> Iterator[_Span]:
    axis = None if inputs == outputs else resize_axis(inputs, outputs, align_corners)
    for start in range(0, outputs, max(1, length)):
        pixels = slice(start, min(outputs, start + length))
        if axis is None:
            yield _Span(pixels, pixels, None)
        else:
            low, high, weights = axis.matrix(pixels.start, pixels.stop)
            yield _Span(pixels, slice(low, high), weights.to(like))


def _add_tile(small: Tensor, labels: Tensor, options: _Head, tile: _Tile, sums: Tensor, gradient: Tensor) -> None:
    """Add one tile's share to the sums and the gradient, both in place."""
    source = (tile.images, slice(None), tile.rows.source, tile.columns.source)
    values = _resized(small[source], tile)
    ids, valid, factor = _label_factors(labels, options, tile)
    # Shifted by the largest logit of the pixel, exp never overflows and the sum is at least 1.
    values -= values.amax(dim=1, keepdim=True)
    truth = values.gather(1, ids)
    total = values.exp_().sum(dim=1, keepdim=True)
    # Chosen, not multiplied by 0: an infinite logit of a pixel that does not count is no matter.
    sums[0] += torch.where(factor != 0, (total.log() - truth) * factor, 0.0).sum(dtype=torch.float64)
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
        gradient[source] += _gathered(values, tile)


def _label_factors(labels: Tensor, options: _Head, tile: _Tile) -> tuple[Tensor, Tensor, Tensor]:
    """A tile's class ids (0 where ignored), whether each counts, and its factor in the cross-entropy; (n, 1, R, X)."""
    place = (tile.images, None, tile.rows.pixels, tile.columns.pixels)
    ids = labels[place].long()
    valid = ids != options.ignore_index
    ids = ids * valid
    factor = options.weight[ids] * valid
    if options.pixel_weight is not None:
        factor *= options.pixel_weight[place]
    return ids, valid, factor


def _resized(small: Tensor, tile: _Tile) -> Tensor:
    """Small logits (n, C, r, x) at the labels' resolution: (n, C, R, X), a tensor of its own."""
    values = small if tile.rows.mix is None else torch.matmul(tile.rows.mix, small)
    if tile.columns.mix is not None:
        return torch.matmul(values, tile.columns.mix.t())
    return values.clone(memory_format=torch.contiguous_format) if values is small else values


def _gathered(values: Tensor, tile: _Tile) -> Tensor:
    """``_resized`` transposed: (n, C, R, X) → (n, C, r, x)."""
    if tile.columns.mix is not None:
        values = torch.matmul(values, tile.columns.mix)
    return values if tile.rows.mix is None else torch.matmul(tile.rows.mix.t(), values)
