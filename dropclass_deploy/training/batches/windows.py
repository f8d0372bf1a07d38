"""Windows over an image: where one may lie, and what part of it the image fills."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dropclass_deploy.training.batches.draws import draw

Size = tuple[int, int]
"""(height, width)."""
Corner = tuple[int, int]
"""(top, left) in the image; below 0 where the window begins beyond it."""


@dataclass(frozen=True)
class Inside:
    """The part of a window that lies in the image: where it is there, and where it goes in the window."""

    rows: slice
    columns: slice
    to_rows: slice
    to_columns: slice

    @property
    def shape(self) -> Size:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def inside(size: torch.Size, corner: Corner, window: Size) -> Inside:
    """The part of the window at ``corner`` that an image of ``size`` fills."""
    top, left = corner
    rows = slice(max(top, 0), min(top + window[0], size[0]))
    columns = slice(max(left, 0), min(left + window[1], size[1]))
    return Inside(
        rows,
        columns,
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )


def cut_mask(mask: Tensor, corner: Corner, window: Size, ignore_index: int) -> Tensor:
    """The window's labels, (height, width); ``ignore_index`` beyond the mask."""
    part = inside(mask.shape, corner, window)
    if part.shape == window:
        return mask[part.rows, part.columns]
    canvas = torch.full(window, ignore_index, dtype=mask.dtype)
    canvas[part.to_rows, part.to_columns] = mask[part.rows, part.columns]
    return canvas


def random_corner(size: torch.Size, window: Size, generator: torch.Generator) -> Corner:
    """Anywhere the window lies wholly inside the image, or the image wholly inside it; the top is drawn first."""
    return _offset(size[0], window[0], generator), _offset(size[1], window[1], generator)


def centred_corner(size: torch.Size, window: Size, pixel: tuple[int, int]) -> Corner:
    """Where the window has ``pixel`` (row, column) in its middle, or as near to it as ``random_corner`` could lie."""
    return _centred(size[0], window[0], pixel[0]), _centred(size[1], window[1], pixel[1])


def _offset(size: int, window: int, generator: torch.Generator) -> int:
    low, high = _bounds(size, window)
    return low + int(draw(generator, 0.0, 1.0) * (high - low + 1))


def _centred(size: int, window: int, pixel: int) -> int:
    low, high = _bounds(size, window)
    return min(max(pixel - window // 2, low), high)


def _bounds(size: int, window: int) -> tuple[int, int]:
    """First and last place of the window's first pixel."""
    slack = size - window
    return min(0, slack), max(0, slack)
