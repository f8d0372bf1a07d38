"""Errors by distance and by object size: by hand, against literal loops, and as a split of the pooled figures."""

from __future__ import annotations

import numpy as np
import pytest
from painted_runs import class_table, one_hot_logits, seen_of, through_json
from scipy import ndimage

from dropclass_deploy.analysis.failures.objects import SIZES, ObjectCounts
from dropclass_deploy.analysis.failures.places import BANDS, ErrorsByPlace
from dropclass_deploy.core.metrics import confusion_matrix

IGNORE = 255


def counted(truth, mask, classes=2):
    truth, mask = np.array(truth), np.array(mask)
    counts = ObjectCounts.empty(classes)
    counts.add(truth, mask, truth != IGNORE)
    return counts


def scene(seed, shape=(30, 37), classes=3):
    """A truth in patches with ignored pixels, and a prediction that errs at random and in patches."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, classes, size=(shape[0] // 5 + 1, shape[1] // 5 + 1))
    truth = np.kron(blocks, np.ones((5, 5), dtype=int))[: shape[0], : shape[1]]
    mask = np.roll(truth, generator.integers(0, 3, size=2), axis=(0, 1))
    mask = np.where(generator.random(shape) < 0.05, generator.integers(0, classes, size=shape), mask)
    return np.where(generator.random(shape) < 0.05, IGNORE, truth), mask


def test_objects_by_hand():
    truth = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    mask = [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    counts = counted(truth, mask)
    # Two objects of class 1, of 4 and 1 pixels: three pixels of the first are right and one false pixel touches it; the
    # second is not found. The false pixel in the corner is an object of its own.
    assert counts.objects[1].tolist() == [2, 0, 0, 0, 0, 0, 0]
    assert (counts.pixels[1, 0], counts.hits[1, 0], counts.found[1, 0], counts.spilled[1, 0]) == (5, 3, 1, 1)
    assert (counts.false_objects[1, 0], counts.false_pixels[1, 0]) == (1, 1)
    # Class 0: one object of 11 pixels, 9 of them right; the missed pixel of the first and the second are its false ones.
    assert (counts.pixels[0, 0], counts.hits[0, 0], counts.spilled[0, 0]) == (11, 9, 2)


def test_a_region_that_touches_two_objects_belongs_to_the_larger_share():
    truth = [[1, 0, 1, 1, 1]]
    counts = counted(truth, [[1, 1, 1, 1, 1]])
    assert counts.spilled[1].sum() == 1
    sizes = counted([[1] + [0] + [1] * 20], [[1] * 22])
    assert sizes.spilled[1].tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_of_equal_shares_the_first_object_owns_the_region():
    truth = np.zeros((5, 20), dtype=int)
    truth[0, :4], truth[2:4, :10] = 1, 1
    mask = np.zeros_like(truth)
    mask[0, :3], mask[1, 2], mask[2, 0:3] = 1, 1, 1
    counts = counted(truth, mask)
    assert counts.spilled[1].tolist() == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("pixels", "place"), [(1, 0), (15, 0), (16, 1), (63, 1), (64, 2), (1024, 4), (16384, 6)])
def test_sizes_begin_at_their_edge(pixels, place):
    truth = np.ones((1, pixels), dtype=int)
    assert int(np.flatnonzero(counted(truth, truth).objects[1])[0]) == place


@pytest.mark.parametrize("seed", range(6))
def test_sums_over_sizes_are_the_pooled_iou(seed):
    truth, mask = scene(seed)
    counts = counted(truth, mask, 3)
    confusion = confusion_matrix(truth, mask, 3)
    hits = np.diag(confusion)
    union = confusion.sum(axis=1) + confusion.sum(axis=0) - hits
    np.testing.assert_array_equal(counts.hits.sum(axis=1), hits)
    np.testing.assert_array_equal(counts.pixels.sum(axis=1), confusion.sum(axis=1))
    np.testing.assert_array_equal((counts.pixels + counts.spilled + counts.false_pixels).sum(axis=1), union)


@pytest.mark.parametrize("seed", range(6))
def test_objects_are_those_of_a_literal_loop(seed):
    truth, mask = scene(seed)
    expected = ObjectCounts.empty(3)
    eight = np.ones((3, 3))
    for index in range(3):
        objects, count = ndimage.label(truth == index, structure=eight)
        regions, predicted = ndimage.label((mask == index) & (truth != IGNORE), structure=eight)
        spilled = dict.fromkeys(range(1, count + 1), 0)
        for region in range(1, predicted + 1):
            inside = regions == region
            shared = [int((inside & (objects == number)).sum()) for number in range(1, count + 1)]
            false = int((inside & (truth != index)).sum())
            if max(shared, default=0):
                spilled[1 + shared.index(max(shared))] += false
            else:
                place = max(at for at, size in enumerate(SIZES) if size <= false)
                expected.false_objects[index, place] += 1
                expected.false_pixels[index, place] += false
        for number in range(1, count + 1):
            area, hits = int((objects == number).sum()), int(((objects == number) & (mask == index)).sum())
            place = max(at for at, size in enumerate(SIZES) if size <= area)
            for total, amount in (
                (expected.objects, 1),
                (expected.found, hits / area >= 0.5),
                (expected.pixels, area),
                (expected.hits, hits),
                (expected.spilled, spilled[number]),
            ):
                total[index, place] += amount
    counts = counted(truth, mask, 3)
    for name in ("objects", "found", "pixels", "hits", "spilled", "false_objects", "false_pixels"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("seed", range(2))
def test_bands_are_those_of_a_literal_loop(seed):
    truth, mask = scene(seed)
    places = ErrorsByPlace(3, IGNORE)
    places.observe(seen_of(truth, one_hot_logits(mask, 3)))
    border = [
        (row, column)
        for row, column in np.ndindex(truth.shape)
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
        if 0 <= row + down < truth.shape[0] and 0 <= column + right < truth.shape[1]
        if len({truth[row, column], truth[row + down, column + right]} - {IGNORE}) == 2
    ]
    expected = np.zeros_like(places.bands)
    for row, column in np.ndindex(truth.shape):
        if truth[row, column] != IGNORE:
            distance = min(np.hypot(row - other, column - across) for other, across in border)
            band = max(place for place, start in enumerate(BANDS) if start <= distance + 1e-9)
            expected[band, truth[row, column], mask[row, column]] += 1
    np.testing.assert_array_equal(places.bands, expected)
    np.testing.assert_array_equal(places.bands.sum(axis=0), confusion_matrix(truth, mask, 3))


def test_distance_content_by_hand():
    truth = [[0, 0, 1, 1]] * 4
    mask = [[0, 0, 0, 1]] * 4
    places = ErrorsByPlace(2, IGNORE)
    places.observe(seen_of(truth, one_hot_logits(mask, 2)))
    first, second, *rest = through_json({"bands": places.distance_content([1])})["bands"]
    # On the border: columns 1 and 2, the second of them wrong: IoU of class 0 is 4/8, of class 1 nothing.
    assert (first["pixels"], first["accuracy"], first["miou"], first["rare_miou"]) == (8, 0.5, 0.25, 0.0)
    assert (second["pixels"], second["accuracy"], second["miou"]) == (8, 1.0, 1.0)
    assert all(band["pixels"] == 0 and band["accuracy"] is None and band["miou"] is None for band in rest)


def test_a_class_that_is_only_predicted_in_a_band_has_no_part_in_its_mean():
    places = ErrorsByPlace(3, IGNORE)
    places.observe(seen_of([[0, 0, 0, 1]], one_hot_logits([[2, 0, 0, 1]], 3)))
    band = places.distance_content([])[BANDS.index(2)]
    assert band["iou"] == [0.0, None, None]
    assert band["miou"] == 0.0
    assert band["classes"] == 1
    assert band["rare_miou"] is None


def test_one_class_alone_lies_far_from_any_border():
    places = ErrorsByPlace(2, IGNORE)
    places.observe(seen_of(np.zeros((3, 3)), one_hot_logits(np.zeros((3, 3)), 2)))
    assert places.bands[-1, 0, 0] == 9
    assert places.bands[:-1].sum() == 0


def test_all_ignored_counts_nowhere():
    places = ErrorsByPlace(2, IGNORE)
    places.observe(seen_of(np.full((4, 4), IGNORE), one_hot_logits(np.ones((4, 4)), 2)))
    assert places.bands.sum() == 0
    content = through_json(places.size_content(class_table(2, [1])))
    assert all(one["objects"] == 0 and one["mean_iou"] is None for one in content["bins"])


def test_size_content_by_hand():
    truth = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    mask = [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    places = ErrorsByPlace(2, IGNORE)
    places.observe(seen_of(truth, one_hot_logits(mask, 2)))
    content = through_json(places.size_content(class_table(2, [1])))
    smallest = content["bins"][0]
    # Class 0: 9 of 11 + 2 pixels; class 1: 3 of 5 + 1.
    assert smallest["mean_iou"] == pytest.approx((9 / 13 + 3 / 6) / 2)
    assert smallest["rare_mean_iou"] == pytest.approx(3 / 6)
    assert (smallest["from"], smallest["to"], smallest["objects"], smallest["false_objects"]) == (1, 16, 3, 1)
    assert content["bins"][-1]["to"] is None
    one = content["classes"][1]["bins"][0]
    assert (one["objects"], one["found"], one["iou"], one["recall"]) == (2, 1, 0.5, 0.6)
