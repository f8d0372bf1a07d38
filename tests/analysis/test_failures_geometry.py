"""Regions, borders and distances against SciPy, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dropclass_deploy.analysis.failures.border import border_pixels, squared_distance
from dropclass_deploy.analysis.regions import boxes_of, label_regions, opened

EIGHT = np.ones((3, 3), dtype=int)


def random_mask(seed: int, shape: tuple[int, int], classes: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, classes, size=(shape[0] // 2 + 1, shape[1] // 2 + 1))
    mask = np.kron(coarse, np.ones((2, 2), dtype=int))[: shape[0], : shape[1]]
    noise = generator.random(shape) < 0.1
    return np.where(noise, generator.integers(0, classes, size=shape), mask)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(17, 23), (1, 9), (9, 1), (1, 1), (40, 31)])
def test_regions_are_scipys_of_each_class(seed, shape):
    mask = random_mask(seed, shape)
    keep = np.random.default_rng(seed + 100).random(shape) < 0.8
    labels, count = label_regions(mask, keep)
    assert (labels[~keep] == -1).all()
    total = 0
    for value in range(3):
        theirs, number = ndimage.label(keep & (mask == value), structure=EIGHT)
        pairs = {(ours, other) for ours, other in zip(labels.ravel(), theirs.ravel(), strict=True) if other}
        assert len(pairs) == number == len({ours for ours, _ in pairs})
        total += number
    assert count == total
    assert sorted(set(labels[keep].tolist())) == list(range(count))


def test_regions_are_numbered_by_their_first_pixel():
    labels, count = label_regions(np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0]]), np.ones((3, 3), dtype=bool))
    assert count == 2
    np.testing.assert_array_equal(labels, [[0, 1, 0], [0, 1, 0], [0, 0, 0]])


def test_a_spiral_is_one_region():
    """The longest way between two runs of one region."""
    spiral = np.zeros((31, 31), dtype=int)
    row = column = 0
    for turn, length in enumerate(
        length for pair in zip(range(30, 0, -2), range(30, 0, -2), strict=True) for length in pair
    ):
        down, right = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(length):
            spiral[row, column] = 1
            row, column = row + down, column + right
    _, ours = label_regions(spiral, spiral == 1)
    assert ours == ndimage.label(spiral, structure=EIGHT)[1]


def test_nothing_kept_is_no_region():
    labels, count = label_regions(np.zeros((3, 4), dtype=int), np.zeros((3, 4), dtype=bool))
    assert count == 0
    assert (labels == -1).all()
    assert boxes_of(labels, count).shape == (0, 4)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_scipys(seed):
    mask = random_mask(seed, (20, 27)) == 1
    labels, count = label_regions(mask, mask)
    theirs = ndimage.find_objects(labels + 1)
    expected = [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in theirs]
    np.testing.assert_array_equal(boxes_of(labels, count), expected)


@pytest.mark.parametrize("seed", range(4))
def test_opening_is_scipys_with_a_set_outside(seed):
    mask = random_mask(seed, (24, 30), classes=2) == 1
    eroded = ndimage.binary_erosion(mask, structure=EIGHT, border_value=1)
    np.testing.assert_array_equal(opened(mask), ndimage.binary_dilation(eroded, structure=EIGHT) & mask)


def test_opening_keeps_a_corner_and_drops_a_line():
    mask = np.zeros((8, 9), dtype=bool)
    mask[:2, :2] = True  # two pixels, and a third outside
    mask[5:7] = True
    expected = np.zeros_like(mask)
    expected[:2, :2] = True
    np.testing.assert_array_equal(opened(mask), expected)


def test_border_by_hand():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 255, 255], [0, 0, 1, 1]])
    expected = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0]]
    np.testing.assert_array_equal(border_pixels(labels, 255), np.array(expected, dtype=bool))


def test_diagonal_neighbours_make_no_border():
    labels = np.array([[0, 255], [255, 1]])
    assert not border_pixels(labels, 255).any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(23, 31), (1, 40), (40, 1), (5, 5)])
@pytest.mark.parametrize("limit", [1, 7, 16])
def test_distance_is_scipys_up_to_the_limit(seed, shape, limit):
    targets = np.random.default_rng(seed).random(shape) < 0.03
    targets[0, 0] = True
    exact = np.rint(ndimage.distance_transform_edt(~targets) ** 2).astype(int)
    expected = np.where(exact <= limit**2, exact, (limit + 1) ** 2)
    np.testing.assert_array_equal(squared_distance(targets, limit), expected)


def test_without_a_target_everything_is_far():
    assert (squared_distance(np.zeros((4, 5), dtype=bool), 3) == 16).all()
