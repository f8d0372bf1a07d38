"""Matrices as pictures."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.analysis.matrix_picture import largest_size, signed_picture


def decoded(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png))).astype(int)


def test_signs_and_sizes_are_colours() -> None:
    picture = decoded(signed_picture(np.array([[-1.0, 0.5], [0.0, math.nan]]), 1.0))
    assert picture.shape == (48, 48, 3)
    low, half, zero, nothing = (picture[row, column] for row, column in ((5, 5), (5, 30), (30, 5), (30, 30)))
    assert low[2] > low[0] + 100
    assert half[0] > half[2] + 50
    assert zero.min() == zero.max() == 247
    assert nothing.min() == nothing.max() == 150
    assert (picture[36, 36] == 0).all()


@pytest.mark.parametrize("count", [2, 19, 60, 150, 254])
def test_it_stays_small_and_shows_every_cell(count: int) -> None:
    matrix = np.random.default_rng(0).uniform(-1, 1, (count, count))
    png = signed_picture(matrix, 1.0)
    side = decoded(png).shape[0]
    assert side % count == 0
    assert side <= 640
    assert len(png) < 150_000


def test_one_scale_for_all() -> None:
    assert largest_size([np.array([[0.1, math.nan]]), np.array([[-0.4, 0.2]])]) == 0.4
    assert largest_size([np.array([[0.0, math.nan]])]) is None
    assert largest_size([]) is None
    same = [decoded(signed_picture(np.array([[0.2, value], [0.0, 0.0]]), 0.4))[2, 2] for value in (0.4, 0.1)]
    assert (same[0] == same[1]).all()
    beyond, full = (decoded(signed_picture(np.full((2, 2), value), 0.4)) for value in (0.9, 0.4))
    assert (beyond == full).all()
