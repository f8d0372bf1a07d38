"""Triton kernels of the losses at label resolution from low-resolution logits; ``triton_losses`` launches them.

What one program does, and why:

* It owns a few neighbouring *cells* (``axis_cells``): the label pixels between the same four logits. A block has the shape
  [SY, XR, BW, XL]: SY rows and XR column groups of a cell lie in the registers of one thread (the leading axes of Triton's
  default layout), BW cells times XL columns fill the 32 lanes of one warp. So the four corner logits of a class are read
  once per thread for SY·XR pixels, sums over a cell need log2(XL) shuffles, and nothing goes through shared memory.
* Classes are visited three times: the corners' maxima, the sum of exponentials, the gradient. Interpolating anew is one
  multiply-add a pixel and three a column; keeping what was interpolated would be N·C·H·W numbers.
* A pixel and class then costs two exponentials (exp2, one instruction each) and fifteen other instructions, counted in the
  machine code for compute capability 9.0 at stride 8; there two exponentials take as long as sixteen others.
* The gradient of a cell is four sums a class. With ATOMIC they are added to the logits' gradient; else they are stored,
  and ``gather_kernel`` adds for each logit its four neighbours' in a fixed order.
* With SAME nothing is resized: a block is a span of a row, each pixel reads and writes its own logit.

Tensors that live through a loop over classes must have one layout, or the compiler converts them in the loop: see the
comments where a run of neighbours is hidden from it. One image's labels, and the logits and the sums of one class of one
image, must each have fewer than 2**31 elements; batches and classes may go beyond.
"""

# Triton reads these functions' source; their parameters are pointers and numbers that Python has no types for, capitals
# are known when it compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803

from __future__ import annotations

import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from dropclass_deploy.training.losses.triton_blocks import (
    block_columns,
    block_least,
    block_rows,
    block_total,
    block_union,
    gradient_offsets,
    pixel_factors,
    put_gradient,
)

LOG2_E = tl.constexpr(1.4426950408889634)
FAINT = tl.constexpr(2.0**-100)  # below it what counts of a sum may have left float32's normal numbers
LN_2 = tl.constexpr(0.6931471805599453)


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
def _sum_and_own(corners, levels, down, across, label, present, classes, step, SAME: tl.constexpr):
    """Sum over the classes of exp2(exponent), and the exponent of each pixel's own label.

    ``present``: bit c mod 32 is set where a pixel of the block has label c. What only such pixels need is skipped for
    the other classes, which most are: a block is a few cells.
    """
    own = tl.zeros_like(label).to(tl.float32)
    total = own
    for c in range(classes):
        exponent = _exponents(corners, levels, down, across, SAME)
        corners = _moved(corners, step)
        total += tl.exp2(exponent)
        if (present >> (c & 31)) & 1:
            own += tl.where(label == c, exponent, 0.0)  # a sum: a choice the compiler would make without the branch
    return total, own


@triton.jit
def _stable_sum(corners, levels, down, across, classes, step, SAME: tl.constexpr):
    """The largest exponent of each pixel, and the sum over the classes of exp2(exponent − largest)."""
    top = _exponents(corners, levels, down, across, SAME)
    moving = corners
    for _ in range(1, classes):
        moving = _moved(moving, step)
        top = tl.maximum(top, _exponents(moving, levels, down, across, SAME))
    total = tl.zeros_like(top)
    for _ in range(classes):
        total += tl.exp2(_exponents(corners, levels, down, across, SAME) - top)
        corners = _moved(corners, step)
    return top, total


@triton.jit
def _gradients(
    corners, levels, down, across, pixels, top, gradient, inside, offsets, writer, classes, suppressed, step, gradient_step,
    SAME: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """Write ∂/∂logits of every class: p_c·(k − s·p_z) − k·[c = y] + s·p_z·[c = z].

    ``pixels``: the label y, k, (k − s·p_z)/total, and ``present``. The class z has been written: its own term would cost
    the loop a register a pixel.
    """
    label, k, factor, present = pixels
    for c in range(classes):
        if c != suppressed:
            g = tl.exp2(_exponents(corners, levels, down, across, SAME) - top) * factor
            if (present >> (c & 31)) & 1:
                g -= tl.where(label == c, k, 0.0)
            put_gradient(gradient, g, inside, offsets, writer, down, across, SAME, ATOMIC)
        corners = _moved(corners, step)
        gradient += gradient_step


@triton.jit
def _softmax_parts(corners, levels, down, across, label, present, classes, step, SAME: tl.constexpr):
    """At each pixel: the label's exponent, what to subtract from exponents, log2 of the sum of exp2 of those differences.

    What is subtracted is 0, except in a ``faint`` block: corners that are each sure of another class can leave the sum
    between them too small for float32, and then each pixel's own maximum is needed.
    """
    total, own = _sum_and_own(corners, levels, down, across, label, present, classes, step, SAME)
    top = tl.zeros_like(total)
    faint = block_least(total) < FAINT
    if faint:
        top, total = _stable_sum(corners, levels, down, across, classes, step, SAME)
    return own, top, tl.log2(total), faint


@triton.jit
def _write_gradients(
    corners, levels, down, across, label, k, suppression, probability, top, log_total, present, faint,
    gradient, inside, offsets, writer, classes, suppressed, step, gradient_step,
    SAME: tl.constexpr, ATOMIC: tl.constexpr,
):  # fmt: skip
    """All classes' gradients: z's, then the others', without the subtraction where no pixel of the block needs it."""
    if suppressed >= 0:
        g = probability * (k - suppression) + suppression - tl.where(label == suppressed, k, 0.0)
        out = gradient + suppressed.to(tl.int64) * gradient_step
        put_gradient(out, g, inside, offsets, writer, down, across, SAME, ATOMIC)
    pixels = (label, k, (k - suppression) * tl.exp2(-log_total), present)
    if faint:
        _gradients(corners, levels, down, across, pixels, top, gradient, inside, offsets, writer, classes, suppressed,
                   step, gradient_step, SAME, ATOMIC)  # fmt: skip
    else:
        _gradients(corners, levels, down, across, pixels, 0.0, gradient, inside, offsets, writer, classes, suppressed,
                   step, gradient_step, SAME, ATOMIC)  # fmt: skip


@triton.jit(do_not_specialize=["classes", "suppressed", "ignore_index", "stride_c", "gradient_stride"])
def loss_kernel(
    logits, labels, weight, pixel_weight, scale, sums, gradient,
    starts_y, cells_y, share_y, starts_x, cells_x, share_x,
    classes, suppressed, ignore_index, h, w, H, W, pieces_y, pieces_x, per_x, blocks_x,
    stride_n, stride_c, stride_h, stride_w, gradient_stride,
    SY: tl.constexpr, XR: tl.constexpr, BW: tl.constexpr, XL: tl.constexpr,
    SAME: tl.constexpr, GRADIENT: tl.constexpr, ATOMIC: tl.constexpr, SKIP: tl.constexpr,
):  # fmt: skip
    """Losses of BW column pieces of one row piece of one image, and their gradients; ``head_losses`` has the maths."""
    program = tl.program_id(0)
    piece_y = (program // blocks_x) % pieces_y
    image = (program // blocks_x // pieces_y).to(tl.int64)
    piece_x = (program % blocks_x) * BW + tl.arange(0, BW)[None, None, :, None]
    writer = (piece_x < pieces_x) & (tl.arange(0, XL)[None, None, None, :] == 0)
    piece_x = tl.broadcast_to(piece_x, (1, 1, BW, XL))
    y, own_y, down, rows, y_source = block_rows(starts_y, cells_y, share_y, piece_y, h, stride_h, SY, SAME)
    x, own_x, across, columns, x_source = block_columns(
        starts_x, cells_x, share_x, piece_x, pieces_x, w, W, stride_w, XR, XL, SAME
    )
    inside = own_y & own_x
    step = stride_c.to(tl.int64)
    corners = _corner_pointers(logits + image * stride_n, rows, columns)
    levels = _levels(corners, classes, step, SAME)
    label, k = pixel_factors(labels, weight, pixel_weight, image * H * W, y * W + x, inside, classes, ignore_index)
    present = -1
    if SKIP:
        present = block_union(tl.where(label >= 0, 1 << (label & 31), 0))
    own, top, log_total, faint = _softmax_parts(corners, levels, down, across, label, present, classes, step, SAME)
    tl.store(sums + 2 * program, block_total(tl.where(label >= 0, k * ((log_total + (top - own)) * LN_2), 0.0)))
    probability = tl.zeros_like(top)
    if suppressed >= 0:
        of_z = _exponents(_moved(corners, suppressed.to(tl.int64) * step), levels, down, across, SAME)
        probability = tl.where(label >= 0, tl.exp2(of_z - top - log_total), 0.0)
    tl.store(sums + 2 * program + 1, block_total(probability))
    if GRADIENT:
        # The piece again, by way of its cell in memory: where the compiler sees a run of neighbours it changes the
        # store's layout, and converts to it in the loop.
        known = tl.minimum(piece_x, pieces_x - 1)
        slot = (tl.load(cells_x + known) + 1) * per_x + known % per_x
        offsets = gradient_offsets(y_source, x_source, y, x, piece_y, slot, pieces_y, pieces_x, w, W, SAME, ATOMIC)
        _write_gradients(corners, levels, down, across, label, k * tl.load(scale), probability * tl.load(scale + 1),
                         probability, top, log_total, present, faint, gradient + image * classes * gradient_stride,
                         inside, offsets, writer, classes, suppressed, step, gradient_stride, SAME, ATOMIC)  # fmt: skip


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
    for j in range(per_y):
        upper = ((y + 1) * per_y + j) * pieces_x
        lower = (y * per_y + j) * pieces_x
        for i in range(per_x):
            left = (x + 1) * per_x + i
            right = x * per_x + i
            total += tl.load(source + upper + left, mask=inside, other=0.0)
            total += tl.load(source + size + upper + right, mask=inside, other=0.0)
            total += tl.load(source + 2 * size + lower + left, mask=inside, other=0.0)
            total += tl.load(source + 3 * size + lower + right, mask=inside, other=0.0)
    tl.store(gradient + plane * h * w + index, total, mask=inside)


# Whether a block skips what only its own labels' classes need. Not under the interpreter: there a reduction by an operator
# of one's own takes most of a second a program.
SKIP_ABSENT = isinstance(loss_kernel, triton.JITFunction)
