# The language of these functions is Triton's: their arguments are pointers and numbers that no Python type describes.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,import-untyped"
"""The gate's device functions. A program handles one tile; ``triton_gate`` says how many there are and how large.

Conditions on A and S are written so that a NaN stays one, as it does in plain torch.
"""

import triton
import triton.language as tl

# ---- Planes: features as (N·K, h·w); a program has `block` pixels of one row, hence of one channel.


@triton.jit
def gate_planes(features, positive, negative, result, channels, plane, segments, block: tl.constexpr):
    """A⁺·positive + A⁻·negative for one tile of planes."""
    program = tl.program_id(0)
    row = program // segments  # n·K + k
    channel = row % channels
    offsets = (program % segments) * block + tl.arange(0, block)
    inside = offsets < plane
    base = row.to(tl.int64) * plane
    a = tl.load(features + base + offsets, mask=inside, other=0.0).to(tl.float32)
    slope = tl.where(a > 0, tl.load(positive + channel), tl.load(negative + channel))
    tl.store(result + base + offsets, a * slope, mask=inside)


# ---- Pixels: features as (rows, width), a row being one or several pixels; column j is of channel j mod K.


@triton.jit
def gate_pixels(
    features,
    positive,
    negative,
    result,
    channels,
    rows,
    width,
    column_blocks,
    steps: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """The same for `steps` tiles of pixels below one another, which share the gates that were read."""
    program = tl.program_id(0)
    column = (program % column_blocks) * tile_columns + tl.arange(0, tile_columns)
    part = program // column_blocks
    row = tl.arange(0, tile_rows)
    known = column < width
    up = tl.load(positive + column % channels, mask=known, other=0.0)
    down = tl.load(negative + column % channels, mask=known, other=0.0)
    offsets = row[:, None] * width + column[None, :]
    for step in range(steps):
        first = (part * steps + step) * tile_rows
        inside = (first + row < rows)[:, None] & known[None, :]
        base = first.to(tl.int64) * width
        a = tl.load(features + base + offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(result + base + offsets, a * tl.where(a > 0, up[None, :], down[None, :]), mask=inside)


@triton.jit
def backward_planes(
    grad,
    features,
    positive,
    negative,
    result,
    partial,
    channels,
    plane,
    segments,
    partials,
    features_too: tl.constexpr,
    gates_too: tl.constexpr,
    block: tl.constexpr,
):
    """The gradient of A, and this tile's share of both gates' gradients: partial is (2, N·segments, K)."""
    program = tl.program_id(0)
    row = program // segments
    segment = program % segments
    channel = row % channels
    offsets = segment * block + tl.arange(0, block)
    inside = offsets < plane
    base = row.to(tl.int64) * plane
    a = tl.load(features + base + offsets, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + base + offsets, mask=inside, other=0.0).to(tl.float32)
    if features_too:
        slope = tl.where(a <= 0, 0.0, tl.load(positive + channel)) + tl.where(a >= 0, 0.0, tl.load(negative + channel))
        tl.store(result + base + offsets, g * slope, mask=inside)
    if gates_too:
        product = g * a
        target = ((row // channels) * segments + segment).to(tl.int64) * channels + channel
        tl.store(partial + target, tl.sum(tl.where(a <= 0, 0.0, product), axis=0))
        tl.store(partial + partials + target, tl.sum(tl.where(a >= 0, 0.0, product), axis=0))


@triton.jit
def backward_pixels(
    grad,
    features,
    positive,
    negative,
    result,
    partial,
    channels,
    rows,
    width,
    column_blocks,
    partials,
    features_too: tl.constexpr,
    gates_too: tl.constexpr,
    steps: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """The same for `steps` tiles below one another: partial is (2, parts, width)."""
    program = tl.program_id(0)
    column = (program % column_blocks) * tile_columns + tl.arange(0, tile_columns)
    part = program // column_blocks
    row = tl.arange(0, tile_rows)
    known = column < width
    up = tl.load(positive + column % channels, mask=known, other=0.0)
    down = tl.load(negative + column % channels, mask=known, other=0.0)
    offsets = row[:, None] * width + column[None, :]
    above = tl.zeros((tile_rows, tile_columns), tl.float32)
    below = tl.zeros((tile_rows, tile_columns), tl.float32)
    for step in range(steps):
        first = (part * steps + step) * tile_rows
        inside = (first + row < rows)[:, None] & known[None, :]
        base = first.to(tl.int64) * width
        a = tl.load(features + base + offsets, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(grad + base + offsets, mask=inside, other=0.0).to(tl.float32)
        if features_too:
            slope = tl.where(a <= 0, 0.0, up[None, :]) + tl.where(a >= 0, 0.0, down[None, :])
            tl.store(result + base + offsets, g * slope, mask=inside)
        if gates_too:
            product = g * a
            above += tl.where(a <= 0, 0.0, product)
            below += tl.where(a >= 0, 0.0, product)
    if gates_too:
        target = part.to(tl.int64) * width + column
        tl.store(partial + target, tl.sum(above, axis=0), mask=known)
        tl.store(partial + partials + target, tl.sum(below, axis=0), mask=known)


@triton.jit(do_not_specialize=["dropped", "count"])
def class_gates(
    importance,
    positive,
    negative,
    classes,
    channels,
    dropped,
    count,
    tile_rows: tl.constexpr,
    tile_columns: tl.constexpr,
):
    """Means of S⁺ and of S⁻ over the kept rows of S (classes, channels), for one block of columns."""
    column = tl.program_id(0) * tile_columns + tl.arange(0, tile_columns)
    above = tl.zeros((tile_rows, tile_columns), tl.float32)
    below = tl.zeros((tile_rows, tile_columns), tl.float32)
    for first in range(0, classes, tile_rows):
        row = first + tl.arange(0, tile_rows)
        kept = ((row < classes) & (row != dropped))[:, None] & (column < channels)[None, :]
        s = tl.load(importance + row[:, None] * channels + column[None, :], mask=kept, other=0.0)
        above += tl.where(s < 0, 0.0, s)
        below += tl.where(s > 0, 0.0, s)
    tl.store(positive + column, tl.sum(above, axis=0) / count, mask=column < channels)
    tl.store(negative + column, tl.sum(below, axis=0) / count, mask=column < channels)


@triton.jit(do_not_specialize=["dropped", "count"])
def class_gates_backward(
    grad_positive, grad_negative, importance, result, size, channels, dropped, count, block: tl.constexpr
):
    """The gradient of S, 0 in the dropped row."""
    offsets = tl.program_id(0) * block + tl.arange(0, block)
    inside = offsets < size
    s = tl.load(importance + offsets, mask=inside, other=0.0)
    column = offsets % channels
    above = tl.load(grad_positive + column, mask=inside & (s > 0), other=0.0)
    below = tl.load(grad_negative + column, mask=inside & (s < 0), other=0.0)
    kept = offsets // channels != dropped
    tl.store(result + offsets, tl.where(kept, (above + below) / count, 0.0), mask=inside)
