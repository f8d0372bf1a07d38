"""Where a program's block lies, for the kernels of ``triton_kernels``: pixels, sources, labels; and where it writes."""

# Triton reads these functions' source; their parameters are pointers and numbers that Python has no types for, capitals
# are known when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]


@triton.jit
def block_rows(starts, cells, share, piece, size_in, stride, SY: tl.constexpr, SAME: tl.constexpr):
    """Label rows [SY, 1, 1, 1] of a piece, which of them are its own, the second source's weight, the source offsets."""
    index = tl.load(starts + piece) + tl.arange(0, SY)[:, None, None, None]
    own = index < tl.load(starts + piece + 1)
    down = tl.load(share + index, mask=own, other=0.0)
    if SAME:
        upper = tl.where(own, index, 0)
        lower = upper
    else:
        cell = tl.load(cells + piece)
        upper = tl.maximum(cell, 0)
        lower = tl.minimum(cell + 1, size_in - 1)
    return index, own, down, (upper.to(tl.int64) * stride, lower.to(tl.int64) * stride), (upper, lower)


@triton.jit
def block_columns(
    starts, cells, share, piece, pieces, size_in, size_out, stride, XR: tl.constexpr, XL: tl.constexpr, SAME: tl.constexpr
):  # fmt: skip
    """The same of the columns [1, XR, BW, XL]; ``piece`` is [1, 1, BW, XL], so that a corner is read by whole warps."""
    known = tl.minimum(piece, pieces - 1)
    # The minimum changes no pixel of the block's own; it hides a run of neighbours, for which labels would be read in
    # another layout, and converted in every comparison with a class.
    group = tl.minimum(tl.arange(0, XR) * XL, size_out)[None, :, None, None]
    index = tl.load(starts + known) + group + tl.arange(0, XL)[None, None, None, :]
    own = (index < tl.load(starts + known + 1)) & (piece < pieces)
    across = tl.load(share + index, mask=own, other=0.0)
    if SAME:
        left = tl.where(own, index, 0)
        right = left
    else:
        cell = tl.load(cells + known)
        left = tl.maximum(cell, 0)
        right = tl.minimum(cell + 1, size_in - 1)
    return index, own, across, (left * stride, right * stride), (left, right)


@triton.jit
def pixel_factors(labels, weight, pixel_weight, start, offsets, inside, classes, ignore_index):
    """Label and weight[label]·pixel_weight of the block's pixels; −1 and 0 where a pixel does not count."""
    label = tl.load(labels + start + offsets, mask=inside, other=0)
    if label.dtype != tl.int64:
        label = label.to(tl.int32)
    valid = inside & (label != ignore_index) & (label >= 0) & (label < classes)
    label = tl.where(valid, label, -1).to(tl.int32)
    factor = tl.load(weight + label, mask=valid, other=0.0)
    if pixel_weight is not None:
        factor *= tl.load(pixel_weight + start + offsets, mask=valid, other=0.0)
    return label, factor


@triton.jit
def gradient_offsets(
    y_source, x_source, y, x, piece_y, slot, pieces_y, pieces_x, w, W, SAME: tl.constexpr, ATOMIC: tl.constexpr
):
    """Where a class's gradient goes: the pixel, the four corners in the logits, or the cell in each of four planes."""
    if SAME:
        here = y * W + x
        offsets = (here, here, here, here)
    elif ATOMIC:
        upper, lower = y_source
        left, right = x_source
        offsets = (upper * w + left, upper * w + right, lower * w + left, lower * w + right)
    else:
        plane = pieces_y * pieces_x
        cell = piece_y * pieces_x + slot
        offsets = (cell, plane + cell, 2 * plane + cell, 3 * plane + cell)
    return offsets


@triton.jit
def block_total(values):
    """The sum over a block, axis by axis (this and its like): a flattened one would change the layout."""
    return tl.sum(tl.sum(tl.sum(tl.sum(values, 0), 0), 0), 0)


@triton.jit
def block_least(values):
    """The minimum over a block."""
    return tl.min(tl.min(tl.min(tl.min(values, 0), 0), 0), 0)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def block_union(bits):
    """The bits that are set anywhere in a block."""
    bits = tl.reduce(tl.reduce(bits, 0, _either), 0, _either)
    return tl.reduce(tl.reduce(bits, 0, _either), 0, _either)


@triton.jit
def _cell_sums(g, down, across):
    """The gradient of a class at the block's pixels → of its cells' upper left, upper right, lower left, lower right.

    Sums over rows and column groups stay within a thread; only four numbers a thread are left to sum over lanes.
    """
    every = tl.sum(g, 0, keep_dims=True)
    lower = tl.sum(g * down, 0, keep_dims=True)
    every_right = tl.sum(tl.sum(every * across, 1, keep_dims=True), 3, keep_dims=True)
    lower_right = tl.sum(tl.sum(lower * across, 1, keep_dims=True), 3, keep_dims=True)
    every = tl.sum(tl.sum(every, 1, keep_dims=True), 3, keep_dims=True)
    lower = tl.sum(tl.sum(lower, 1, keep_dims=True), 3, keep_dims=True)
    upper_right = every_right - lower_right
    return every - lower - upper_right, upper_right, lower - lower_right, lower_right


@triton.jit
def put_gradient(out, g, inside, offsets, writer, down, across, SAME: tl.constexpr, ATOMIC: tl.constexpr):
    """Write a class's gradient: ``offsets`` of the pixels (SAME), or of the cells' four corners for the lanes ``writer``."""
    if SAME:
        tl.store(out + offsets[0], g, mask=inside)
    else:
        sums = _cell_sums(g, down, across)
        for corner in tl.static_range(4):
            # Every lane of a cell has the sums; spread over the lanes again, the store needs no other layout.
            value = tl.broadcast_to(sums[corner], writer.shape)
            if ATOMIC:
                tl.atomic_add(out + offsets[corner], value, mask=writer, sem="relaxed")
            else:
                tl.store(out + offsets[corner], value, mask=writer)
