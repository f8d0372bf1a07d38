"""Triton kernels of the losses at label resolution from low-resolution logits; ``triton_losses`` launches them.

What one program does, and why:

* It owns a few neighbouring *cells* (``axis_cells``): the label pixels between the same four logits. A block has the shape
  [SY, XR, BW, XL]: SY rows and XR column groups of a cell lie in the registers of one thread (the leading axes of Triton's
  default layout), BW cells times XL columns fill the 32 lanes of one warp. So the four corner logits of a class are read
  once per thread for SY·XR pixels, sums over a cell need log2(XL) shuffles, and nothing goes through shared memory.
* Classes are visited three times, with the logits interpolated anew: maximum, sum of exponentials, gradient. Interpolating
  is two or three multiply-adds a pixel; storing what was interpolated would be N·C·H·W numbers.
* The corners are multiplied by log2 e on reading: exponentials are then exp2, one instruction of the hardware.
* The gradient of a cell is four sums a class. With ATOMIC they are added to the logits' gradient; else they are stored,
  and ``gather_kernel`` adds for each logit its four neighbours' in a fixed order.
* With SAME nothing is resized: a block is a span of a row, each pixel reads and writes its own logit.

Whatever is not a power of two, or at the border, is masked by ``inside``. One image's labels and the space of one class
must each have fewer than 2**31 elements; batches and classes may go beyond.
"""

# Triton reads these functions' source; their parameters are pointers and numbers that Python has no types for.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _scaled_logits(plane, rows, columns, down, across, SAME: tl.constexpr):
    """log2 e times the logits of one class at the block's pixels, float32 [SY, XR, BW, XL].

    ``plane`` points to the class; ``rows`` are the offsets of the two source rows, ``columns`` of the two columns.
    """
    upper, lower = rows
    left, right = columns
    a = tl.load(plane + upper + left).to(tl.float32) * LOG2_E
    if SAME:
        result = a
    else:
        b = tl.load(plane + upper + right).to(tl.float32) * LOG2_E
        c = tl.load(plane + lower + left).to(tl.float32) * LOG2_E
        d = tl.load(plane + lower + right).to(tl.float32) * LOG2_E
        top = a + across * (b - a)
        bottom = c + across * (d - c)
        result = top + down * (bottom - top)
    return result


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
def _put_gradient(out, g, inside, offsets, writer, down, across, SAME: tl.constexpr, ATOMIC: tl.constexpr):
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


@triton.jit
def _log_sum(base, rows, columns, down, across, start, classes, stride, SAME: tl.constexpr):
    """Maximum and sum of exp2(logit − maximum) over the classes, of scaled logits: float32, like ``start``."""
    top = start - float("inf")
    plane = base
    for _ in range(0, classes):
        top = tl.maximum(top, _scaled_logits(plane, rows, columns, down, across, SAME))
        plane += stride
    total = start
    plane = base
    for _ in range(0, classes):
        total += tl.exp2(_scaled_logits(plane, rows, columns, down, across, SAME) - top)
        plane += stride
    return top, total


@triton.jit
def _block_rows(starts, cells, share, piece, size_in, stride, SY: tl.constexpr, SAME: tl.constexpr):
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
def _block_columns(
    starts, cells, share, piece, pieces, size_in, stride, XR: tl.constexpr, XL: tl.constexpr, SAME: tl.constexpr
):
    """The same of the columns [1, XR, BW, XL]; ``piece`` is [1, 1, BW, XL], so that a corner is read by whole warps."""
    known = tl.minimum(piece, pieces - 1)
    group = tl.arange(0, XR)[None, :, None, None] * XL
    index = tl.load(starts + known) + group + tl.arange(0, XL)[None, None, None, :]
    own = (index < tl.load(starts + known + 1)) & (piece < pieces)
    across = tl.load(share + index, mask=own, other=0.0)
    if SAME:
        left = tl.where(own, index, 0)
        right = left
    else:
        # From memory, not computed: the compiler then sees no run of neighbours, for which it would change the layout.
        cell = tl.load(cells + known)
        left = tl.maximum(cell, 0)
        right = tl.minimum(cell + 1, size_in - 1)
    return index, own, across, (left * stride, right * stride), (left, right)


@triton.jit
def _pixel_factors(labels, weight, pixel_weight, offsets, inside, classes, ignore_index):
    """Label (−1: does not count), whether the pixel counts, and weight[label]·pixel_weight, of the block's pixels."""
    label = tl.load(labels + offsets, mask=inside, other=0).to(tl.int64)
    valid = inside & (label != ignore_index) & (label >= 0) & (label < classes)
    label = tl.where(valid, label, -1).to(tl.int32)
    factor = tl.load(weight + label, mask=valid, other=0.0)
    if pixel_weight is not None:
        factor *= tl.load(pixel_weight + offsets, mask=valid, other=0.0)
    return label, valid, factor


@triton.jit
def _gradients(
    base, pixels, at, gradient, inside, offsets, writer, classes, suppressed, stride, gradient_stride,
    SAME: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Write ∂/∂logits of every class: p_c·(k − s·p_z) − k·[c = y] + s·p_z·[c = z].

    ``pixels``: the label y, k, s·p_z, and what ``_log_sum`` gave. The class z has a term of its own and goes first, so
    that the loop over the others keeps one number a pixel less in registers.
    """
    label, k, suppression, top, total = pixels
    rows, columns, down, across = at
    factor = (k - suppression) / total
    if suppressed >= 0:
        share = tl.exp2(_scaled_logits(base + suppressed.to(tl.int64) * stride, rows, columns, down, across, SAME) - top)
        g = share * factor + suppression - tl.where(label == suppressed, k, 0.0)
        out = gradient + suppressed.to(tl.int64) * gradient_stride
        _put_gradient(out, g, inside, offsets, writer, down, across, SAME, ATOMIC)
    plane = base
    out = gradient
    for c in range(0, classes):
        if c != suppressed:
            share = tl.exp2(_scaled_logits(plane, rows, columns, down, across, SAME) - top)
            g = share * factor - tl.where(label == c, k, 0.0)
            _put_gradient(out, g, inside, offsets, writer, down, across, SAME, ATOMIC)
        plane += stride
        out += gradient_stride


@triton.jit
def _offsets(
    y_source, x_source, y, x, piece_y, piece_x, pieces_y, pieces_x, w, W, SAME: tl.constexpr, ATOMIC: tl.constexpr
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
        cell = piece_y * pieces_x + piece_x
        offsets = (cell, plane + cell, 2 * plane + cell, 3 * plane + cell)
    return offsets


@triton.jit
def _total(values):
    """The sum over a block, axis by axis: a flattened one would change the layout."""
    return tl.sum(tl.sum(tl.sum(tl.sum(values, 0), 0), 0), 0)


@triton.jit
def _label_losses(base, label, valid, factor, top, total, stride, at, SAME: tl.constexpr):
    """factor·(−log softmax at the label), 0 where ``valid`` is false. The label's logit is read, not met on the way
    through the classes: four reads a pixel instead of a comparison a pixel and class."""
    rows, columns, down, across = at
    plane = base + tl.maximum(label, 0).to(tl.int64) * stride
    chosen = _scaled_logits(plane, rows, columns, down, across, SAME)
    return tl.where(valid, factor * ((tl.log2(total) + (top - chosen)) * LN_2), 0.0)


@triton.jit(do_not_specialize=["classes", "suppressed", "ignore_index"])
def loss_kernel(
    logits, labels, weight, pixel_weight, scale, sums, gradient,
    starts_y, cells_y, share_y, starts_x, cells_x, share_x,
    classes, suppressed, ignore_index, h, w, H, W, pieces_y, pieces_x, blocks_x,
    stride_n, stride_c, stride_h, stride_w, gradient_stride,
    SY: tl.constexpr, XR: tl.constexpr, BW: tl.constexpr, XL: tl.constexpr,
    SAME: tl.constexpr, GRADIENT: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Losses of BW column pieces of one row piece of one image, and their gradients; ``head_losses`` has the maths."""
    program = tl.program_id(0)
    piece_y = (program // blocks_x) % pieces_y
    image = (program // blocks_x // pieces_y).to(tl.int64)
    piece_x = (program % blocks_x) * BW + tl.arange(0, BW)[None, None, :, None]
    lane = tl.arange(0, XL)[None, None, None, :]
    writer = (piece_x < pieces_x) & (lane == 0)
    piece_x = tl.broadcast_to(piece_x, (1, 1, BW, XL))

    y, own_y, down, rows, y_source = _block_rows(starts_y, cells_y, share_y, piece_y, h, stride_h, SY, SAME)
    x, own_x, across, columns, x_source = _block_columns(
        starts_x, cells_x, share_x, piece_x, pieces_x, w, stride_w, XR, XL, SAME
    )
    at = (rows, columns, down, across)
    inside = own_y & own_x
    start = image * H * W
    if pixel_weight is not None:
        pixel_weight += start
    label, valid, factor = _pixel_factors(
        labels + start, weight, pixel_weight, y * W + x, inside, classes, ignore_index
    )
    base = logits + image * stride_n
    top, total = _log_sum(base, rows, columns, down, across, tl.where(inside, 0.0, 0.0), classes, stride_c, SAME)
    tl.store(sums + 2 * program, _total(_label_losses(base, label, valid, factor, top, total, stride_c, at, SAME)))
    probability = tl.where(inside, 0.0, 0.0)
    if suppressed >= 0:
        plane = base + suppressed.to(tl.int64) * stride_c
        probability = tl.exp2(_scaled_logits(plane, rows, columns, down, across, SAME) - top) / total
        probability = tl.where(valid, probability, 0.0)
    tl.store(sums + 2 * program + 1, _total(probability))
    if GRADIENT:
        gradient += image * classes * gradient_stride
        offsets = _offsets(y_source, x_source, y, x, piece_y, piece_x, pieces_y, pieces_x, w, W, SAME, ATOMIC)
        pixels = (label, factor * tl.load(scale), probability * tl.load(scale + 1), top, total)
        _gradients(base, pixels, at, gradient, inside, offsets, writer, classes, suppressed, stride_c, gradient_stride,
                   SAME, ATOMIC)  # fmt: skip


@triton.jit
def gather_kernel(partial, gradient, h, w, pieces_y, pieces_x, blocks, per_y, per_x, BLOCK: tl.constexpr):
    """The gradient of BLOCK logits of one class: the sums of the four cells around each, added in a fixed order.

    Logit (y, x) is the upper left corner of cell (y, x), the upper right one of (y, x − 1), and so on; cell −1 is stored
    first, hence the + 1. ``partial`` is (N·C, 4, pieces_y, pieces_x); a cell has ``per_y`` × ``per_x`` pieces.
    """
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    index = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = index < h * w
    y, x = index // w, index % w
    size = pieces_y * pieces_x
    source = partial + plane * 4 * size
    total = tl.zeros((BLOCK,), tl.float32)
    for j in range(0, per_y):
        upper = ((y + 1) * per_y + j) * pieces_x
        lower = (y * per_y + j) * pieces_x
        for i in range(0, per_x):
            left = (x + 1) * per_x + i
            right = x * per_x + i
            total += tl.load(source + upper + left, mask=inside, other=0.0)
            total += tl.load(source + size + upper + right, mask=inside, other=0.0)
            total += tl.load(source + 2 * size + lower + left, mask=inside, other=0.0)
            total += tl.load(source + 3 * size + lower + right, mask=inside, other=0.0)
    tl.store(gradient + plane * h * w + index, total, mask=inside)
