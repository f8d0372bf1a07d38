"""Binned average precision against scikit-learn and a literal sort."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score

from dropclass_deploy.core.average_precision import BINS, PrecisionHistogram, bins_of, precision_json
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError

PRIOR = (0.5, 0.3, 0.19, 0.009, 0.001)  # the rarest class has some 20 of 20,000 pixels


def softmax_scores(seed: int, sharpness: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Probabilities (C, P) of a network that is right more often than not, and the labels (P,)."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(PRIOR), 20_000, p=PRIOR)
    logits = generator.normal(0, 1, (len(PRIOR), labels.size)) + 0.3 * np.log(np.array(PRIOR))[:, None]
    logits[labels, np.arange(labels.size)] += generator.gamma(2, 1, labels.size)
    powers = np.exp(sharpness * (logits - logits.max(axis=0)))
    return (powers / powers.sum(axis=0)).astype(np.float32), labels


def histogram(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> PrecisionHistogram:
    counted = PrecisionHistogram(len(probabilities))
    counted.update(probabilities, labels)
    return counted


def sorted_average_precision(scores: npt.NDArray[np.floating], own: npt.NDArray[np.bool_]) -> float:
    """Σ (Rₙ − Rₙ₋₁) Pₙ over the different scores, from the highest down, one at a time."""
    found = seen = 0
    area = recall = 0.0
    for score in sorted(set(scores.tolist()), reverse=True):
        found += int((own & (scores == score)).sum())
        seen += int((scores == score).sum())
        area += (found / own.sum() - recall) * found / seen
        recall = found / own.sum()
    return area


def test_four_pixels_by_hand() -> None:
    # Class 1 from the top: right, wrong, right: (1/2)·1 + (1/2)·(2/3). Class 0: right (0.6), wrong, right, wrong.
    probabilities = np.array([[0.1, 0.4, 0.5, 0.6], [0.9, 0.6, 0.5, 0.4]])
    counted = histogram(probabilities, np.array([1, 0, 1, 0], np.uint8))
    assert counted.average_precision() == pytest.approx([5 / 6, 5 / 6], abs=1e-15)  # a few roundings of float64
    assert counted.map == pytest.approx(5 / 6)
    assert (counted.wgap, counted.wgap_class) == (pytest.approx(5 / 6), 0)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_close_to_scikit_learn_and_the_bounds_hold_it(seed: int, sharpness: float) -> None:
    probabilities, labels = softmax_scores(seed, sharpness)
    counted = histogram(probabilities, labels)
    oracle = [average_precision_score(labels == index, row) for index, row in enumerate(probabilities)]
    # What the module says of its error; the largest here is 0.0015.
    np.testing.assert_allclose(counted.average_precision(), oracle, rtol=0, atol=0.0025)
    lower, upper = counted.bounds()
    slack = 1e-12  # roundings of sums over 15,000 bins
    assert (lower - slack <= oracle).all()
    assert (oracle <= upper + slack).all()
    assert (upper - lower).max() < 0.02  # so few pixels: with 400,000 it is 0.005
    assert counted.map == pytest.approx(np.mean(oracle), abs=0.001)
    assert counted.wgap_class == int(np.argmin(oracle))


def test_equal_steps_of_the_probability_would_not_do() -> None:
    """Why the bins are as they are: of a confident network's rare class, 1,000 equal steps lose the order."""
    probabilities, labels = softmax_scores(0, 12.0)
    rare = len(PRIOR) - 1
    own = labels == rare
    oracle = average_precision_score(own, probabilities[rare])
    equal_steps = average_precision_score(own, np.floor(probabilities[rare] * 1000))
    ours = histogram(probabilities, labels).average_precision()[rare]
    assert abs(equal_steps - oracle) > 10 * abs(ours - oracle)


def test_equal_to_scikit_learn_on_the_bins_themselves() -> None:
    probabilities, labels = softmax_scores(2, 4.0)
    oracle = [average_precision_score(labels == index, bins_of(row)) for index, row in enumerate(probabilities)]
    # Sums in another order, in float64.
    np.testing.assert_allclose(histogram(probabilities, labels).average_precision(), oracle, rtol=1e-10)


def test_equal_to_a_literal_loop_on_scores_with_ties() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 3, 400)
    scores = generator.choice([0.0, 1e-6, 0.25, 0.5, 0.75, 1.0], (3, 400))  # one bin each
    expected = [sorted_average_precision(row, labels == index) for index, row in enumerate(scores)]
    np.testing.assert_allclose(histogram(scores, labels).average_precision(), expected, rtol=1e-12)


def test_bins_rise_with_the_probability_and_reach_both_ends() -> None:
    values = np.array([0, 1e-13, 1e-12, 1e-6, 0.49999997, 0.5, 0.75, 1 - 2**-23, 1 - 2**-24, 1], np.float32)
    bins = bins_of(values)
    assert (bins[0], bins[-1]) == (0, BINS - 1)
    assert all(low < high for low, high in pairwise(bins[1:].tolist()))
    many = bins_of(np.sort(np.random.default_rng(0).random(10_000, np.float32)))
    assert (np.diff(many) >= 0).all()


def test_every_score_in_one_bin_gives_the_share_of_the_class() -> None:
    counted = histogram(np.full((2, 10), 0.5), np.array([1] * 3 + [0] * 7))
    assert counted.average_precision() == pytest.approx([0.7, 0.3], abs=1e-15)
    lower, upper = counted.bounds()
    # All three of class 1 first, with one score: 1. All last: 1/8, 2/9, 3/10, whose mean is 0.2157; the integral is below.
    assert upper[1] == 1.0
    assert lower[1] == pytest.approx((3 - 7 * math.log(10 / 7)) / 3)
    assert lower[1] < (1 / 8 + 2 / 9 + 3 / 10) / 3


def test_the_credit_of_saturated_probabilities_is_known() -> None:
    counted = histogram(np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), np.array([0, 0, 0, 1]))
    assert [bound[0] for bound in counted.bounds()] == [0.75, 0.75]


def test_a_perfect_ranking_is_one() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    counted = histogram(np.stack([1.0 - labels, labels]), labels)
    assert counted.average_precision().tolist() == [1.0, 1.0]
    assert [bound.tolist() for bound in counted.bounds()] == [[1.0, 1.0], [1.0, 1.0]]


def test_images_and_processes_add_up() -> None:
    probabilities, labels = softmax_scores(4, 2.0)
    whole, first, second = histogram(probabilities, labels), PrecisionHistogram(5), PrecisionHistogram(5)
    for part, half in ((first, slice(0, 7000)), (second, slice(7000, None))):
        part.update(probabilities[:, half], labels[half])
    total = first + second
    np.testing.assert_array_equal(total.counts, whole.counts)
    assert total.counts.dtype == np.int64
    assert first.counts.sum() == 5 * 7000  # adding leaves both as they were


def test_ignored_pixels_count_nowhere_whatever_stands_there() -> None:
    probabilities, labels = softmax_scores(5, 2.0)
    marked = labels.astype(np.uint8)
    marked[::3], spoilt = 255, probabilities.copy()
    spoilt[:, ::3] = np.nan
    kept = np.arange(labels.size) % 3 > 0
    np.testing.assert_array_equal(
        histogram(spoilt, marked).counts, histogram(probabilities[:, kept], labels[kept]).counts
    )


def test_an_absent_class_is_nan_and_left_out_of_the_mean() -> None:
    counted = histogram(np.array([[0.8, 0.3], [0.1, 0.6], [0.1, 0.1]]), np.array([0, 1]))
    values = counted.average_precision()
    assert values[:2].tolist() == [1.0, 1.0]
    assert math.isnan(values[2])
    assert (counted.map, counted.wgap, counted.wgap_class) == (1.0, 1.0, 0)


def test_nothing_but_ignored_pixels() -> None:
    counted = histogram(np.full((2, 4), 0.5), np.full(4, 255, np.uint8))
    assert np.isnan(counted.average_precision()).all()
    assert math.isnan(counted.map)
    assert math.isnan(counted.wgap)
    assert counted.wgap_class is None


def test_float16_and_float64_are_taken_as_float32() -> None:
    probabilities, labels = softmax_scores(6, 2.0)
    half = probabilities.astype(np.float16)
    np.testing.assert_array_equal(histogram(half, labels).counts, histogram(half.astype(np.float64), labels).counts)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.full((2, 3), 0.5), np.zeros(4, np.uint8), r"shape \(2, 3\) and labels of shape \(4,\)"),
        (np.full((3, 4), 0.5), np.zeros(4, np.uint8), r"expected \(2, P\)"),
        (np.full((2, 2, 2), 0.5), np.zeros((2, 2), np.uint8), r"expected \(2, P\) and \(P,\)"),
        (np.array([[np.nan], [0.5]]), np.zeros(1, np.uint8), "a probability from nan"),
        (np.array([[3.0], [-2.0]]), np.zeros(1, np.uint8), "a probability from -2.0 to 3.0"),
        (np.full((2, 1), 0.5), np.array([2], np.uint8), "a label from 2 to 2; expected 0 … 1"),
        (np.full((2, 1), 0.5), np.array([-1], np.int64), "a label from -1"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.integer], message: str
) -> None:
    counted = PrecisionHistogram(2)
    with pytest.raises(DataError, match=message):
        counted.update(probabilities, labels)
    assert counted.counts.sum() == 0


def test_histograms_of_other_classes_do_not_add_up() -> None:
    with pytest.raises(DataError, match="2 and 3 classes"):
        PrecisionHistogram(2) + PrecisionHistogram(3)


def test_json_names_classes_and_writes_null_for_nan() -> None:
    counted = histogram(np.array([[0.8, 0.3], [0.1, 0.6], [0.1, 0.1]]), np.array([0, 1]))
    content = precision_json(counted, ClassTable(names=("road", "car", "pole")))
    assert (content["map"], content["wgap"], content["wgap_class"]) == (1.0, 1.0, "road")
    assert content["ap"][2] == {"name": "pole", "ap": None, "from": None, "to": None}
