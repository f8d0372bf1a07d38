"""The exact sparse mask head: bilinear resize + argmax that looks inside a cell only where its corners disagree.

A *cell* lies between four neighbouring coarse pixels. Bilinear interpolation is a convex combination of the corners: where
one class wins at all four it wins in the whole cell, and an equal logit inside needs equal logits at the corners, where
the lowest id had won. So the ids of the coarse pixels settle most cells; the others ("mixed") are interpolated.

Two ways, both of standard operators:

- *by cells*, where H and W are a whole multiple s of h and w (half-pixel coordinates): every cell holds s×s pixels with
  the same weights, so that all mixed cells take one matrix product with an (s·s, 4) matrix;
- *by pixels* for every other size and for align_corners: source indices and weights of each axis, then pixel by pixel.

In floating point the result equals the dense head's except where the two largest logits of a pixel lie closer together
than ``rounding_bound``: both heads round, and each in its own order. Time and memory depend on the image: with all cells
mixed, "by cells" holds as much as the dense logits, "by pixels" up to six times that.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropclass_deploy.export.graphs.nodes import Nodes
from dropclass_deploy.export.graphs.resize import ALIGN_CORNERS

LARGEST_SCALE = 32
_UNIT = 2.0**-24
_END = 2**31 - 1


def rounding_bound(largest_logit: float, coarse_size: tuple[int, int]) -> float:
    """Gap of the two largest logits of a pixel above which the sparse and the dense head agree, in float32.

    Each head sums four products of a logit with two weights (8 roundings cover them). The weights come from source
    coordinates up to max(h, w), each rounded three times on the way, and a shift of a coordinate moves a logit by
    at most twice the largest one, on two axes. Twice that for the two logits, and once for either head.

    Args:
        largest_logit: largest absolute logit of the coarse map.
        coarse_size: (h, w).
    """
    per_logit = (8 + 2 * 2 * 3 * max(coarse_size)) * _UNIT * largest_logit
    return 4 * per_logit


def sparse_mask(
    add: Nodes, coarse: str, sizes: str, coordinates: str, scale: int | None, classes: int, sized: bool
) -> str:
    """Nodes from coarse logits to the mask.

    Args:
        add: takes the nodes.
        coarse: logits (N, C, h, w).
        sizes: int64 (4,): N, C, H, W.
        coordinates: of the resize, as ``FinalResize`` has them.
        scale: s when H = s·h and W = s·w for some images; None when there is no such whole number.
        classes: C.
        sized: the graph's sizes are fixed, so that ``scale`` holds for every image.

    Returns:
        Name of the mask uint8 (N, H, W).
    """
    if scale is None or coordinates == ALIGN_CORNERS or not 2 <= scale <= LARGEST_SCALE:
        return by_pixels(add, coarse, sizes, coordinates)
    if sized:
        return by_cells(add, coarse, scale, classes)
    found = add("Slice", sizes, add.ints(2), add.ints(4))
    whole = add("Mul", add("Shape", coarse, start=2, end=4), add.ints(scale, scale))
    fits = add("ReduceMin", add.cast(add("Equal", found, whole), "int32"), keepdims=0)
    cells, pixels = Nodes(f"{add.prefix}.cells"), Nodes(f"{add.prefix}.pixels")
    cells_mask = by_cells(cells, coarse, scale, classes)
    pixels_mask = by_pixels(pixels, coarse, sizes, coordinates)
    return add(
        "If",
        add.cast(fits, "bool"),
        then_branch=cells.branch(cells_mask, "uint8"),
        else_branch=pixels.branch(pixels_mask, "uint8"),
    )


def by_cells(add: Nodes, coarse: str, scale: int, classes: int) -> str:
    """The mask uint8 (N, s·h, s·w) by whole cells; half-pixel coordinates."""
    ids = add("Pad", _ids(add, coarse), add.ints(0, 1, 1, 0, 1, 1), mode="edge")  # (N, h + 2, w + 2)
    corner, mixed = _cells(add, ids)  # (N, h + 1, w + 1)
    found = add("NonZero", mixed)  # (3, M)
    best = _best_inside(add, coarse, found, scale, classes)  # (M, s·s)
    # Rows of a table are copied as blocks, which Expand does not do for single bytes.
    table = np.repeat(np.arange(classes, dtype=np.uint8)[:, None], scale * scale, axis=1)
    settled = add("Gather", add.constant(table), corner, axis=0)  # (N, h + 1, w + 1, s·s)
    filled = add("ScatterND", settled, add("Transpose", found, perm=[1, 0]), best)
    return _tiles_to_mask(add, filled, corner, scale)


def _ids(add: Nodes, coarse: str) -> str:
    """Winning class of every coarse pixel, int32 (N, h, w)."""
    return add.cast(add("ArgMax", coarse, axis=1, keepdims=0, select_last_index=0), "int32")


def _cells(add: Nodes, ids: str) -> tuple[str, str]:
    """Id at the first corner of every cell, and whether the four corners disagree, from ids (N, a + 1, b + 1)."""
    axes = (1, 2)
    first = add.slice(ids, (0, 0), (-1, -1), axes)
    others = [
        add.slice(ids, (0, 1), (-1, _END), axes),
        add.slice(ids, (1, 0), (_END, -1), axes),
        add.slice(ids, (1, 1), (_END, _END), axes),
    ]
    right, below, across = (add("Equal", first, other) for other in others)
    return first, add("Not", add("And", add("And", right, below), across))


def _best_inside(add: Nodes, coarse: str, found: str, scale: int, classes: int) -> str:
    """Winning class uint8 (M, s·s) of the pixels of M mixed cells at ``found`` (3, M) of (N, h + 1, w + 1)."""
    pixels = _Coarse(add, coarse)
    image, row, column = (add("Squeeze", place, add.ints(0)) for place in add.split(found, 3, axis=0))  # (M,) each
    one, zero = add.ints(1), add.ints(0)
    # Cell i lies between coarse pixels i − 1 and i; beyond the edge the edge itself goes on.
    rows = (add("Max", add("Sub", row, one), zero), add("Min", row, add("Sub", pixels.height, one)))
    columns = (add("Max", add("Sub", column, one), zero), add("Min", column, add("Sub", pixels.width, one)))
    corners = add("Concat", *(pixels.index(image, y, x) for y in rows for x in columns), axis=0)  # (4·M,)
    count = add("Shape", row)
    columns_of = add("Concat", add.ints(4), add("Mul", count, add.ints(classes)), axis=0)
    flat = add("Reshape", pixels.logits(corners), columns_of, allowzero=1)  # (4, M·C)
    product = add("MatMul", add.constant(cell_weights(scale)), flat)  # (s·s, M·C)
    shape = add("Concat", add.ints(scale * scale), count, add.ints(classes), axis=0)
    logits = add("Reshape", product, shape, allowzero=1)
    best = add.cast(add("ArgMax", logits, axis=2, keepdims=0, select_last_index=0), "uint8")
    return add("Transpose", best, perm=[1, 0])


class _Coarse:
    """Coarse logits with the classes last: those of one pixel lie together, and are gathered as a block."""

    def __init__(self, add: Nodes, coarse: str) -> None:
        self._add = add
        last = add("Transpose", coarse, perm=[0, 2, 3, 1])
        rows = add("Concat", add.ints(-1), add("Shape", coarse, start=1, end=2), axis=0)
        self._flat = add("Reshape", last, rows)  # (N·h·w, C)
        self.height = add("Shape", coarse, start=2, end=3)
        self.width = add("Shape", coarse, start=3, end=4)

    def index(self, image: str, row: str, column: str) -> str:
        """Position of pixels in the flat logits, from int64 tensors of one shape."""
        add = self._add
        above = add("Add", add("Mul", image, self.height), row)
        return add("Add", add("Mul", above, self.width), column)

    def logits(self, index: str) -> str:
        """Logits (…, C) at positions (…)."""
        return self._add("Gather", self._flat, index, axis=0)


def cell_weights(scale: int) -> npt.NDArray[np.float32]:
    """Weights of a cell's corners (top left, top right, bottom left, bottom right) for its s×s pixels: (s·s, 4)."""
    before = (scale + 1) // 2  # pixels of a cell that lie before the first coarse pixel's centre row
    along = (np.arange(scale) - before + 0.5) / scale + 0.5
    weights = [np.outer(rows, columns) for rows in (1 - along, along) for columns in (1 - along, along)]
    return np.stack(weights, axis=-1).reshape(scale * scale, 4).astype(np.float32)


def _tiles_to_mask(add: Nodes, tiles: str, cells: str, scale: int) -> str:
    """Tiles (N, a, b, s·s) side by side, without the margin of half a cell: (N, (a − 1)·s, (b − 1)·s)."""
    shape = add("Shape", cells)
    split = add("Reshape", tiles, add("Concat", shape, add.ints(scale, scale), axis=0))
    rows = add("Transpose", split, perm=[0, 1, 3, 2, 4])
    whole = add("Reshape", rows, add("Mul", shape, add.ints(1, scale, scale)))
    before = (scale + 1) // 2
    return add.slice(whole, (before, before), (before - scale, before - scale), (1, 2))


def by_pixels(add: Nodes, coarse: str, sizes: str, coordinates: str) -> str:
    """The mask uint8 (N, H, W) for any sizes."""
    ids = add("Pad", _ids(add, coarse), add.ints(0, 0, 0, 0, 1, 1), mode="edge")
    corner, mixed = _cells(add, ids)  # (N, h, w)
    rows, columns = (_Axis(add, coarse, sizes, axis, coordinates) for axis in (2, 3))
    spread = [
        add("Gather", add("Gather", cells, rows.low, axis=1), columns.low, axis=2)
        for cells in (add.cast(corner, "uint8"), mixed)
    ]  # (N, H, W)
    found = add("NonZero", spread[1])  # (3, M)
    logits = _interpolated(add, coarse, found, rows, columns)
    best = add.cast(add("ArgMax", logits, axis=1, keepdims=0, select_last_index=0), "uint8")
    return add("ScatterND", spread[0], add("Transpose", found, perm=[1, 0]), best)


class _Axis:
    """Source indices ``low`` and ``high`` int64 and the weight ``share`` float32 of ``high``, for every target index."""

    def __init__(self, add: Nodes, coarse: str, sizes: str, axis: int, coordinates: str) -> None:
        one = add.ints(1)
        source = add("Shape", coarse, start=axis, end=axis + 1)
        target = add("Slice", sizes, add.ints(axis), add.ints(axis + 1))
        length = add("Squeeze", target, add.ints(0))
        zero, step = add.constant(np.array(0, np.int64)), add.constant(np.array(1, np.int64))
        index = add.cast(add("Range", zero, length, step), "float32")
        last = add("Sub", source, one)
        if coordinates == ALIGN_CORNERS:
            # One target pixel takes the first source pixel: 0 · anything, so the divisor only must not be 0.
            steps = add("Max", add("Sub", target, one), one)
            place = add("Div", add("Mul", index, add.cast(last, "float32")), add.cast(steps, "float32"))
        else:
            half = add.number(0.5)
            ratio = add("Div", add.cast(target, "float32"), add.cast(source, "float32"))
            place = add("Sub", add("Div", add("Add", index, half), ratio), half)
        inside = add("Min", add("Max", place, add.number(0.0)), add.cast(last, "float32"))
        self.low = add.cast(add("Floor", inside), "int64")
        self.high = add("Min", add("Add", self.low, one), last)
        self.share = add("Sub", inside, add("Floor", inside))


def _interpolated(add: Nodes, coarse: str, found: str, rows: _Axis, columns: _Axis) -> str:
    """Logits (M, C) at target positions ``found`` (3, M): image, row, column."""
    pixels = _Coarse(add, coarse)
    image, row, column = (add("Squeeze", place, add.ints(0)) for place in add.split(found, 3, axis=0))  # (M,) each
    below, right = (
        add("Unsqueeze", add("Gather", axis.share, place, axis=0), add.ints(1))  # (M, 1)
        for axis, place in ((rows, row), (columns, column))
    )
    one = add.number(1.0)
    above, left = add("Sub", one, below), add("Sub", one, right)
    total = ""
    for row_index, row_weight in ((rows.low, above), (rows.high, below)):
        for column_index, column_weight in ((columns.low, left), (columns.high, right)):
            y, x = add("Gather", row_index, row, axis=0), add("Gather", column_index, column, axis=0)
            corner = pixels.logits(pixels.index(image, y, x))  # (M, C)
            term = add("Mul", corner, add("Mul", row_weight, column_weight))
            total = add("Add", total, term) if total else term
    return total
