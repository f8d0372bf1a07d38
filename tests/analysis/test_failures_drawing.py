"""The pictures of failures: colours with patterns, boxes with numbers, small files."""

from __future__ import annotations

import numpy as np
import pytest
from painted_runs import picture_of

from dropclass_deploy.analysis.failures.drawing import (
    CORRECT,
    FALSE,
    MAX_BYTES,
    MISSED,
    NOTHING,
    boxed,
    error_map,
    error_statuses,
    legend_tile,
    paletted_png,
    shown_size,
)

IGNORE = 255


def test_statuses_by_hand():
    statuses = error_statuses(np.array([[1, 1, 0, 255]]), np.array([[1, 0, 1, 1]]), 1, IGNORE)
    assert statuses.tolist() == [[CORRECT, MISSED, FALSE, NOTHING]]


def test_statuses_differ_in_colour_and_in_pattern():
    tiles = {status: picture_of(legend_tile(status)) for status in (CORRECT, MISSED, FALSE)}
    colours = {status: {tuple(pixel) for pixel in tile.reshape(-1, 3).tolist()} for status, tile in tiles.items()}
    assert len(colours[CORRECT]) == 1  # even
    assert len(colours[MISSED]) == len(colours[FALSE]) == 2  # patterned
    assert len(set.union(*colours.values())) == 5
    grey = {status: (tile @ [0.299, 0.587, 0.114] > tile.mean() + 1) for status, tile in tiles.items()}
    assert not np.array_equal(grey[MISSED], grey[FALSE])


def test_an_error_map_marks_only_the_class():
    image = np.full((300, 300, 3), 96, dtype=np.uint8)
    statuses = np.zeros((300, 300), dtype=np.uint8)
    statuses[100:200, 100:200] = MISSED
    drawn = picture_of(error_map(image, statuses))
    coloured = np.ptp(drawn.astype(int), axis=2) > 0
    np.testing.assert_array_equal(coloured, statuses == MISSED)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((360, 480), (360, 480)),
        ((1024, 2048), (240, 480)),
        ((96, 128), (192, 256)),
        ((4, 4), (240, 240)),
        ((1, 3000), (1, 480)),
    ],
)
def test_pictures_are_neither_tiny_nor_wide(size, shown):
    assert shown_size(size) == shown


def test_few_colours_are_kept_exactly_and_many_bytes_are_shrunk():
    few = np.random.default_rng(0).integers(0, 3, size=(50, 60, 1)).astype(np.uint8) * np.array(
        [80, 60, 7], dtype=np.uint8
    )
    np.testing.assert_array_equal(picture_of(paletted_png(few)), few)
    noise = np.random.default_rng(0).integers(0, 256, size=(480, 480, 3)).astype(np.uint8)
    data = paletted_png(noise)
    assert len(data) <= MAX_BYTES
    assert picture_of(data).shape[0] < 480


def test_a_box_surrounds_its_region_at_the_shown_size():
    picture = np.full((120, 120, 3), 200, dtype=np.uint8)
    drawn = picture_of(boxed(picture, np.array([[40, 50, 60, 80]]), smooth=False)).astype(int)
    assert drawn.shape == (240, 240, 3)
    inside = drawn[83:117, 103:157]
    assert (inside == 200).all()
    assert (drawn[80, 100:160] == 255).all()
    assert (drawn[119, 100:160] == 255).all()
    rows, columns = np.nonzero((drawn != 200).any(axis=2))
    assert (columns.min(), columns.max(), rows.max()) == (98, 161, 121)
    assert rows.min() < 70  # the number, above


@pytest.mark.parametrize("box", [[0, 0, 20, 20], [0, 0, 120, 120], [100, 90, 120, 120], [60, 0, 119, 5]])
def test_a_number_stands_inside_the_picture(box):
    picture = np.full((120, 120, 3), 200, dtype=np.uint8)
    with_number = picture_of(boxed(picture, np.array([box]), smooth=False))
    black = (with_number == 0).all(axis=2)
    # A filled field of about 12 by 18 pixels; the lines of the box are one pixel wide each.
    fields = np.lib.stride_tricks.sliding_window_view(black, (4, 3)).all(axis=(2, 3))
    assert fields.any()
