"""Which label pixels share their source pixels when logits are resized bilinearly along one axis.

Pixels whose source coordinate lies between the same two centres form a *cell* and read the same two logits. There is one
cell before the first centre (id −1, where a border pixel is read alone) and one from the last centre on: with an integer
scale s every inner cell then holds exactly s pixels, and none of a block of s is idle. Cells longer than a block are cut
into *pieces*, all cells into the same number, so that a piece's cell follows from its index.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# A block's fixed cost (corner loads, sums over lanes), in pixels, as counted in the kernels' machine code.
_ROW_BLOCK_COST = 2.5
_COLUMN_BLOCK_COST = 1.0


@dataclass(frozen=True)
class AxisCells:
    """One axis, cut up for the kernels.

    Attributes:
        starts: (pieces + 1,) int32, the first label pixel of each piece; the next one's is its end. Pieces may be empty.
        cells: (pieces,) int32, the cell of each piece, −1 … size_in − 1; its sources are this id and the next, clamped.
        share: (size_out,) float32, the weight of a label pixel's second source; its first has the rest.
        length: the most pixels of a piece, rounded up to a power of two.
        pieces_per_cell: how many pieces each cell has.
    """

    starts: Tensor
    cells: Tensor
    share: Tensor
    length: int
    pieces_per_cell: int

    @property
    def pieces(self) -> int:
        """Pieces along the axis."""
        return len(self.cells)


def source_cells(size_in: int, size_out: int, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The cell of each label pixel, and the weight of its second source, as ``F.interpolate`` defines them.

    Exact: the coordinate is a fraction of whole numbers, split by whole division, so no pixel lands in a neighbour's cell
    by rounding.

    Returns:
        int64 (size_out,) of −1 … size_in − 1, and float64 (size_out,) in [0, 1].
    """
    pixel = torch.arange(size_out, dtype=torch.int64)
    if align_corners:
        numerator, denominator = pixel * (size_in - 1), max(size_out - 1, 1)
        last = max(size_in - 2, 0)  # the last pixel belongs to the last interval, at its end
    else:
        numerator, denominator = (2 * pixel + 1) * size_in - size_out, 2 * size_out
        last = size_in - 1
    cell = torch.div(numerator, denominator, rounding_mode="floor").clamp(max=last)
    share = (numerator - cell * denominator).double() / denominator
    if not align_corners:  # beyond the outer centres the border pixel alone
        share[cell == -1] = 1.0
        share[cell == size_in - 1] = 0.0
    return cell, share


def block_length(count: int, cap: int, fixed: float) -> int:
    """The power of two ≤ ``cap`` that covers ``count`` pixels at the least cost, each block costing ``fixed`` more."""
    lengths = [1 << power for power in range(cap.bit_length())]
    return min(reversed(lengths), key=lambda length: -(-count // length) * (length + fixed))


def _cut(counts: Tensor, length: int, pieces_per_cell: int) -> Tensor:
    """(pieces + 1,) first pixels: each cell in pieces of ``length``, the last ones short or empty."""
    ends = counts.cumsum(0)
    offsets = torch.arange(pieces_per_cell) * length
    starts = torch.minimum((ends - counts)[:, None] + offsets, ends[:, None]).flatten()
    return torch.cat([starts, ends[-1:]])


@lru_cache(maxsize=64)
def axis_cells(
    size_in: int, size_out: int, align_corners: bool, rows: bool, cap: int, device: torch.device
) -> AxisCells:
    """The tables of one axis on ``device``; kept, because a training run asks for few sizes again and again.

    Args:
        size_in: of the logits.
        size_out: of the labels.
        align_corners: as in ``F.interpolate``.
        rows: whether a thread holds the pixels (rows) or lanes do (columns): what a block costs differs.
        cap: the longest piece.
        device: where the tables go.
    """
    cell, share = source_cells(size_in, size_out, align_corners)
    counts = torch.bincount(cell + 1, minlength=size_in + 1)
    longest = int(counts.max())
    length = block_length(longest, cap, _ROW_BLOCK_COST if rows else _COLUMN_BLOCK_COST)
    pieces_per_cell = -(-longest // length)
    ids = torch.arange(-1, size_in).repeat_interleave(pieces_per_cell)
    return AxisCells(
        starts=_cut(counts, length, pieces_per_cell).to(device, torch.int32),
        cells=ids.to(device, torch.int32),
        share=share.to(device, torch.float32),
        length=length,
        pieces_per_cell=pieces_per_cell,
    )


@lru_cache(maxsize=64)
def axis_spans(size: int, length: int, device: torch.device) -> AxisCells:
    """The tables of an axis that is not resized: spans of ``length`` pixels, which read their own logits."""
    pieces = -(-size // length)
    starts = (torch.arange(pieces + 1) * length).clamp(max=size)
    unused = torch.zeros(pieces, dtype=torch.int32, device=device)
    return AxisCells(
        starts.to(device, torch.int32), unused, torch.zeros(size, dtype=torch.float32, device=device), length, 1
    )
