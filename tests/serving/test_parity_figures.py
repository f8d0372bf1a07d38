"""Counts and bootstrap against literal loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.serving.parity.bootstrap import delta_intervals, delta_samples, resample_weights
from dropclass_deploy.serving.parity.counts import PairedCounts, count_image, pair_counts

IGNORE = 255


def random_masks(images: int = 7, classes: int = 4, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    triples = []
    for index in range(images):
        label = rng.integers(0, classes - (index % 2), (6, 8))
        near = np.where(rng.random(label.shape) < 0.3, rng.integers(0, classes, label.shape), label)
        other = np.where(rng.random(label.shape) < 0.3, rng.integers(0, classes, label.shape), label)
        label = np.where(rng.random(label.shape) < 0.1, IGNORE, label)
        triples.append((label.astype(np.uint8), near.astype(np.uint8), other.astype(np.uint8)))
    return triples


def counted(triples: list[tuple[np.ndarray, np.ndarray, np.ndarray]], classes: int = 4) -> PairedCounts:
    return pair_counts([count_image(*triple, classes, IGNORE) for triple in triples])


def literal_iou(pairs: list[tuple[np.ndarray, np.ndarray]], index: int) -> tuple[float, int]:
    """IoU and truth pixels of one class over (label, mask) pairs, pixel by pixel."""
    inside = union = truth = 0
    for label, mask in pairs:
        for wanted, found in zip(label.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if wanted == IGNORE:
                continue
            truth += wanted == index
            inside += wanted == index == found
            union += index in (wanted, found)
    return (inside / union if union else math.nan), truth


def test_two_by_two_by_hand() -> None:
    label = np.array([[0, 1], [1, IGNORE]], dtype=np.uint8)
    reference = np.array([[0, 1], [0, 0]], dtype=np.uint8)
    candidate = np.array([[0, 1], [1, 1]], dtype=np.uint8)
    counts = counted([(label, reference, candidate)], classes=2)
    # Reference: class 0 has 1 right of union {2 pixels}; class 1 has 1 of 2. The candidate is right everywhere it counts.
    assert counts.reference_iou().tolist() == [0.5, 0.5]
    assert counts.candidate_iou().tolist() == [1.0, 1.0]
    # The ignored pixel differs too: agreement of two networks does not ask for a label.
    assert (counts.differing, counts.pixels, counts.disagreement) == (2, 4, 0.5)


def test_pooled_iou_equals_a_pixel_loop() -> None:
    triples = random_masks()
    counts = counted(triples)
    for index in range(4):
        expected, truth = literal_iou([(label, mask) for label, mask, _ in triples], index)
        assert counts.reference_iou()[index] == expected
        assert counts.candidate_iou()[index] == literal_iou([(label, mask) for label, _, mask in triples], index)[0]
        assert counts.truth[:, index].sum() == truth


def test_absent_class_has_no_iou() -> None:
    zeros = np.zeros((3, 3), dtype=np.uint8)
    assert np.isnan(counted([(zeros, zeros, zeros)]).reference_iou()[1:]).all()


def test_id_outside_the_table_is_an_error() -> None:
    zeros = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="a prediction holds class ids from 9 to 9"):
        count_image(zeros, zeros, zeros + np.uint8(9), 4, IGNORE)


def test_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="no image to compare on"):
        pair_counts([])


def test_bootstrap_equals_a_literal_loop() -> None:
    triples = random_masks()
    weights = resample_weights(len(triples), 25, np.random.default_rng(5))
    samples = delta_samples(counted(triples), weights)
    for row, draw in zip(samples, weights, strict=True):
        drawn = [triple for triple, times in zip(triples, draw.tolist(), strict=True) for _ in range(times)]
        for index in range(4):
            reference, truth = literal_iou([(label, mask) for label, mask, _ in drawn], index)
            candidate, _ = literal_iou([(label, mask) for label, _, mask in drawn], index)
            if truth == 0:
                assert np.isnan(row[index])
            else:
                # Two divisions and a subtraction of float64 numbers below 1.
                assert abs(row[index] - (candidate - reference)) < 1e-15


def test_every_resample_draws_as_many_images() -> None:
    weights = resample_weights(13, 500, np.random.default_rng(0))
    assert (weights.sum(axis=1) == 13).all()
    assert weights.min() >= 0


def test_images_are_drawn_with_equal_chance() -> None:
    weights = resample_weights(8, 20_000, np.random.default_rng(0))
    # Mean 1, variance 7/8 a draw: the standard error of a mean over 20,000 draws is 0.0066; five of them.
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.033)


def test_interval_is_the_percentile_interval_of_the_samples() -> None:
    counts = counted(random_masks())
    intervals = delta_intervals(counts, resamples=250, seed=3)
    samples = delta_samples(counts, resample_weights(7, 250, np.random.default_rng(3)))
    np.testing.assert_array_equal(intervals, np.nanpercentile(samples, (2.5, 97.5), axis=0).T)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    counts = counted(random_masks())
    np.testing.assert_array_equal(delta_intervals(counts, seed=1), delta_intervals(counts, seed=1))
    assert (delta_intervals(counts, seed=1) != delta_intervals(counts, seed=2)).any()


def test_number_of_resamples_is_kept_beyond_one_block() -> None:
    counts = counted(random_masks())
    rng = np.random.default_rng(0)
    blocks = np.concatenate([delta_samples(counts, resample_weights(7, size, rng)) for size in (250, 250, 1)])
    expected = np.nanpercentile(blocks, (2.5, 97.5), axis=0).T
    np.testing.assert_array_equal(delta_intervals(counts, resamples=501, seed=0), expected)


def test_identical_masks_give_a_zero_interval() -> None:
    triples = [(label, mask, mask) for label, mask, _ in random_masks()]
    assert (delta_intervals(counted(triples)) == 0).all()


def test_absent_class_gives_nan_without_a_warning() -> None:
    zeros = np.zeros((3, 3), dtype=np.uint8)
    intervals = delta_intervals(counted([(zeros, zeros, zeros)]), resamples=10)
    assert intervals[0].tolist() == [0.0, 0.0]
    assert np.isnan(intervals[1:]).all()


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    covered, trials, gain = 0, 200, 0.05
    for _ in range(trials):
        # 40 images of 1,000 truth pixels: the candidate finds 5 % more of them on average, images vary by 2 %.
        found = rng.normal(0.6, 0.02, (40, 2)) + np.array([0.0, gain])
        tp = np.rint(1000 * found).astype(np.int64)
        truth = np.full((40, 1), 1000)
        counts = PairedCounts(truth, tp[:, :1], tp[:, :1], tp[:, 1:], tp[:, 1:], 0, 40_000)
        lower, upper = delta_intervals(counts, resamples=300)[0]
        covered += lower <= gain <= upper
    # Binomial with p = 0.95, and the bootstrap is slightly narrow on 40 images: 0.88 is four standard errors below 0.94.
    assert covered / trials > 0.88
