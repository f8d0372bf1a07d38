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
FAINT = tl.constexpr(2.0**-100)  # below it what counts of a sum may have left float32's normal numbers
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _total(values):
    """The sum over a block, axis by axis (this and its like): a flattened one would change the layout."""
    return tl.sum(tl.sum(tl.sum(tl.sum(values, 0), 0), 0), 0)


@triton.jit
def _least(values):
    """The minimum over a block."""
    return tl.min(tl.min(tl.min(tl.min(values, 0), 0), 0), 0)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _union(bits):
    """The bits that are set anywhere in a block."""
    bits = tl.reduce(tl.reduce(bits, 0, _either), 0, _either)
    return tl.reduce(tl.reduce(bits, 0, _either), 0, _either)


@triton.jit
def _corner_pointers(base, rows, columns):
    """Pointers to the four corners' logits of the first class, or four times the pixel's own where nothing is resized."""
    upper, lower = rows
    left, right = columns
    return base + upper + left, base + upper + right, base + lower + left, base + lower + right


@triton.jit
def _moved(corners, step):
    """The same corners, one class (or ``step`` elements) further."""
    a, b, c, d = corners
    return a + step, b + step, c + step, d + step


@triton.jit
def _levels(corners, classes, step, SAME: tl.constexpr):
    """Each corner's largest logit, float32."""
    a, b, c, d = corners
    a = tl.load(a).to(tl.float32)
    if SAME:
        b = a
        c = a
        d = a
        for _ in range(1, classes):
            corners = _moved(corners, step)
            a = tl.maximum(a, tl.load(corners[0]).to(tl.float32))
    else:
        b = tl.load(b).to(tl.float32)
        c = tl.load(c).to(tl.float32)
        d = tl.load(d).to(tl.float32)
        for _ in range(1, classes):
            corners = _moved(corners, step)
            a = tl.maximum(a, tl.load(corners[0]).to(tl.float32))
            b = tl.maximum(b, tl.load(corners[1]).to(tl.float32))
            c = tl.maximum(c, tl.load(corners[2]).to(tl.float32))
            d = tl.maximum(d, tl.load(corners[3]).to(tl.float32))
    return a, b, c, d


@triton.jit
def _exponents(corners, levels, down, across, SAME: tl.constexpr):
    """log2 e times a class's logits at the pixels, less the interpolated levels: float32 [SY, XR, BW, XL], never above 0.

    Subtracting a number from all classes of a corner subtracts its interpolation from all classes of a pixel, and
    softmax does not see that. So four subtractions do for a cell what the maximum of each pixel does otherwise.
    """
    a = tl.load(corners[0]).to(tl.float32) - levels[0]
    if SAME:
        result = a * LOG2_E
    else:
        b = tl.load(corners[1]).to(tl.float32) - levels[1]
        c = tl.load(corners[2]).to(tl.float32) - levels[2]
        d = tl.load(corners[3]).to(tl.float32) - levels[3]
        share = across * LOG2_E
        top = a * LOG2_E + share * (b - a)
        bottom = c * LOG2_E + share * (d - c)
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
def _sum_of_classes(corners, levels, down, across, top, classes, step, SAME: tl.constexpr):
    """Sum over the classes of exp2(exponent − ``top``)."""
    total = tl.exp2(_exponents(corners, levels, down, across, SAME) - top)
    for _ in range(1, classes):
        corners = _moved(corners, step)
        total += tl.exp2(_exponents(corners, levels, down, across, SAME) - top)
    return total


@triton.jit
def _largest_exponent(corners, levels, down, across, classes, step, SAME: tl.constexpr):
    """The maximum over the classes at each pixel."""
    top = _exponents(corners, levels, down, across, SAME)
    for _ in range(1, classes):
        corners = _moved(corners, step)
        top = tl.maximum(top, _exponents(corners, levels, down, across, SAME))
    return top


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
        cell = tl.load(cells + known)
        left = tl.maximum(cell, 0)
        right = tl.minimum(cell + 1, size_in - 1)
    return index, own, across, (left * stride, right * stride), (left, right)


@triton.jit
def _pixel_factors(labels, weight, pixel_weight, start, offsets, inside, classes, ignore_index):
    """Label (−1: does not count), whether the pixel counts, and weight[label]·pixel_weight, of the block's pixels."""
    label = tl.load(labels + start + offsets, mask=inside, other=0).to(tl.int64)
    valid = inside & (label != ignore_index) & (label >= 0) & (label < classes)
    label = tl.where(valid, label, -1).to(tl.int32)
    factor = tl.load(weight + label, mask=valid, other=0.0)
    if pixel_weight is not None:
        factor *= tl.load(pixel_weight + start + offsets, mask=valid, other=0.0)
    return label, valid, factor


@triton.jit
def _gradients(
    corners, levels, down, across, pixels, top, gradient, inside, offsets, writer, classes, suppressed, step, gradient_step,
    SAME: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Write ∂/∂logits of every class: p_c·(k − s·p_z) − k·[c = y] + s·p_z·[c = z].

    ``pixels``: the label y, k, (k − s·p_z)/total, and which of 32 groups of classes have a label in the block: a class
    of the others skips the second term. The class z has been written: its own term would cost the loop a register a pixel.
    """
    label, k, factor, present = pixels
    for c in range(0, classes):
        if c != suppressed:
            g = tl.exp2(_exponents(corners, levels, down, across, SAME) - top) * factor
            if (present >> (c & 31)) & 1:
                g -= tl.where(label == c, k, 0.0)
            _put_gradient(gradient, g, inside, offsets, writer, down, across, SAME, ATOMIC)
        corners = _moved(corners, step)
        gradient += gradient_step


@triton.jit
def _offsets(
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
def _total(values):
    """The sum over a block, axis by axis: a flattened one would change the layout."""
    return tl.sum(tl.sum(tl.sum(tl.sum(values, 0), 0), 0), 0)


@triton.jit
def _label_exponents(base, rows, columns, levels, down, across, label, step, SAME: tl.constexpr):
    """The exponents of the pixels' own labels. They are read, not met on the way through the classes: four reads a pixel
    instead of a comparison a pixel and class."""
    own = base + tl.maximum(label, 0).to(tl.int64) * step
    return _exponents(_corner_pointers(own, rows, columns), levels, down, across, SAME)


@triton.jit(do_not_specialize=["classes", "suppressed", "ignore_index", "stride_c", "gradient_stride"])
def loss_kernel(
    logits, labels, weight, pixel_weight, scale, sums, gradient,
    starts_y, cells_y, share_y, starts_x, cells_x, share_x,
    classes, suppressed, ignore_index, h, w, H, W, pieces_y, pieces_x, per_x, blocks_x,
    stride_n, stride_c, stride_h, stride_w, gradient_stride,
    SY: tl.constexpr, XR: tl.constexpr, BW: tl.constexpr, XL: tl.constexpr,
    SAME: tl.constexpr, GRADIENT: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Losses of BW column pieces of one row piece of one image, and their gradients; ``head_losses`` has the maths."""
    program = tl.program_id(0)
    piece_y = (program // blocks_x) % pieces_y
    image = (program // blocks_x // pieces_y).to(tl.int64)
    piece_x = (program % blocks_x) * BW + tl.arange(0, BW)[None, None, :, None]
    writer = (piece_x < pieces_x) & (tl.arange(0, XL)[None, None, None, :] == 0)
    piece_x = tl.broadcast_to(piece_x, (1, 1, BW, XL))
    known = tl.minimum(piece_x, pieces_x - 1)
    y, own_y, down, rows, y_source = _block_rows(starts_y, cells_y, share_y, piece_y, h, stride_h, SY, SAME)
    x, own_x, across, columns, x_source = _block_columns(
        starts_x, cells_x, share_x, piece_x, pieces_x, w, stride_w, XR, XL, SAME
    )
    inside = own_y & own_x
    step = stride_c.to(tl.int64)
    base = logits + image * stride_n
    corners = _corner_pointers(base, rows, columns)
    levels = _levels(corners, classes, step, SAME)
    # A pixel outside stays at 1, so that nothing is divided by 0.
    total = tl.where(inside, _sum_of_classes(corners, levels, down, across, 0.0, classes, step, SAME), 1.0)
    top = tl.zeros_like(total)
    # Corners that are each sure of another class can leave a pixel's sum too small: then its own maximum is needed.
    faint = _least(total) < FAINT
    if faint:
        top = _largest_exponent(corners, levels, down, across, classes, step, SAME)
        total = _sum_of_classes(corners, levels, down, across, top, classes, step, SAME)

        total = tl.where(inside, total, 1.0)
    label, valid, k = _pixel_factors(
        labels, weight, pixel_weight, image * H * W, y * W + x, inside, classes, ignore_index
    )
    own = _label_exponents(base, rows, columns, levels, down, across, label, step, SAME)
    tl.store(sums + 2 * program, _total(tl.where(valid, k * ((tl.log2(total) + (top - own)) * LN_2), 0.0)))
    probability = tl.zeros_like(total)
    if suppressed >= 0:
        of_z = _exponents(_moved(corners, suppressed.to(tl.int64) * step), levels, down, across, SAME)
        probability = tl.where(valid, tl.exp2(of_z - top) / total, 0.0)
    tl.store(sums + 2 * program + 1, _total(probability))
    if GRADIENT:
        gradient += image * classes * gradient_stride
        # The piece again, by way of its cell in memory: where the compiler sees a run of neighbours it changes the
        # store's layout, and converts to it in the loop.
        slot = (tl.load(cells_x + known) + 1) * per_x + known % per_x
        offsets = _offsets(y_source, x_source, y, x, piece_y, slot, pieces_y, pieces_x, w, W, SAME, ATOMIC)
        k *= tl.load(scale)
        suppression = probability * tl.load(scale + 1)
        if suppressed >= 0:
            g = probability * (k - suppression) + suppression - tl.where(label == suppressed, k, 0.0)
            out = gradient + suppressed.to(tl.int64) * gradient_stride
            _put_gradient(out, g, inside, offsets, writer, down, across, SAME, ATOMIC)
        present = _union(tl.where(valid, 1 << (label & 31), 0))
        pixels = (label, k, (k - suppression) / total, present)
        if faint:
            _gradients(corners, levels, down, across, pixels, top, gradient, inside, offsets, writer, classes, suppressed,
                       step, gradient_stride, SAME, ATOMIC)  # fmt: skip
        else:
            _gradients(corners, levels, down, across, pixels, 0.0, gradient, inside, offsets, writer, classes, suppressed,
                       step, gradient_stride, SAME, ATOMIC)  # fmt: skip


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
