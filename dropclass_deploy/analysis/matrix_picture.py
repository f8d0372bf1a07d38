"""A square matrix of signed figures as a picture: the form that stays readable at 150 classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dropclass_deploy.data.images import Pixels, encode_png

Figures = npt.NDArray[np.float64]

# Below 0 blue, 0 near-white, above red: a pair that the colour-blind can tell apart, too.
_ENDS = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], dtype=np.float64)
_NOTHING = np.array([150, 150, 150], dtype=np.uint8)
_STEPS = 16  # on each side of 0: more cannot be told apart, and make the file of 250 classes large
_WIDTH, _LARGEST_CELL = 600, 24  # pixels


def largest_size(matrices: Sequence[Figures]) -> float | None:
    """The largest absolute figure of all, what a common scale reaches to; None when all are 0 or there is none."""
    sizes = [np.abs(matrix[~np.isnan(matrix)]).max(initial=0.0) for matrix in matrices]
    return float(max(sizes, default=0.0)) or None


def signed_picture(matrix: Figures, scale: float | None) -> bytes:
    """PNG of (C, C) figures, row by row from the top: blue below 0, red above, grey (with a dot) where there is none.

    Args:
        matrix: NaN where there is no figure.
        scale: the absolute figure that is painted in full; what lies beyond is painted like it.
    """
    cell = min(_LARGEST_CELL, max(2, _WIDTH // len(matrix)))
    return encode_png(_gridded(_coloured(matrix, scale or 1.0), cell, np.isnan(matrix)))


def _coloured(matrix: Figures, scale: float) -> Pixels:
    """(C, C, 3)."""
    share = np.rint(_STEPS * np.clip(np.nan_to_num(matrix) / scale, -1.0, 1.0))[..., None] / _STEPS
    end = np.where(share < 0, _ENDS[0], _ENDS[2])
    mixed = np.rint(_ENDS[1] + np.abs(share) * (end - _ENDS[1])).astype(np.uint8)
    return np.where(np.isnan(matrix)[..., None], _NOTHING, mixed)


def _gridded(cells: Pixels, size: int, nothing: npt.NDArray[np.bool_]) -> Pixels:
    """Each cell ``size`` pixels wide, one of them a line to its neighbour where that leaves enough."""
    large = cells.repeat(size, axis=0).repeat(size, axis=1)
    if size >= 6:
        large[size - 1 :: size] = _NOTHING
        large[:, size - 1 :: size] = _NOTHING
        for row, column in np.argwhere(nothing):
            middle = (slice(at * size + size // 2 - 1, at * size + size // 2 + 1) for at in (row, column))
            large[tuple(middle)] = 0
    return large
