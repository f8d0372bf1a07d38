"""Means and paired differences against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from evidence_grid.figures import mean_over_seeds, paired_difference
from scipy.stats import ttest_rel


def test_the_interval_is_scipys_paired_one() -> None:
    rng = np.random.default_rng(7)
    first, second = rng.normal(0.61, 0.01, 5), rng.normal(0.60, 0.01, 5)
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    expected = ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.relative == pytest.approx((first - second).mean() / second.mean())


def test_a_hand_worked_interval() -> None:
    # Differences 1, 2, 3: mean 2, s = 1, t(2; 0.975) = 4.30265, half width 4.30265 / √3 = 2.48414.
    found = paired_difference({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.48414, 4.48414), abs=1e-5)
    assert not found.excludes_zero
    assert found.relative == pytest.approx(0.2)


def test_an_interval_of_equal_differences_excludes_zero() -> None:
    found = paired_difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert found is not None
    assert (found.low, found.high, found.excludes_zero) == (1, 1, True)


def test_one_seed_has_no_interval() -> None:
    found = paired_difference({4: 0.5}, {4: 0.25})
    assert found is not None
    assert (found.mean, found.low, found.high, found.seeds, found.excludes_zero) == (0.25, None, None, 1, False)
    only = mean_over_seeds({4: 0.5})
    assert only is not None
    assert (only.mean, only.std) == (0.5, None)


def test_only_common_seeds_are_paired() -> None:
    # Seed 1 is missing here, seed 3 there, and seed 2 has no figure; 0 and 4 remain.
    found = paired_difference({0: 0.3, 2: None, 3: 0.9, 4: 0.5}, {0: 0.1, 1: 0.9, 2: 0.2, 4: 0.1})
    assert found is not None
    assert found.seeds == 2
    assert found.mean == pytest.approx(0.3)
    assert found.relative == pytest.approx(3)


def test_nothing_in_common_is_no_difference() -> None:
    assert paired_difference({0: 0.3}, {1: 0.3}) is None
    assert mean_over_seeds({0: None}) is None


def test_a_baseline_of_zero_has_no_relative_change() -> None:
    found = paired_difference({0: 0.3, 1: 0.3}, {0: 0.0, 1: 0.0})
    assert found is not None
    assert found.relative is None


def test_the_standard_deviation_is_the_samples() -> None:
    found = mean_over_seeds({0: 1.0, 1: 2.0, 2: 3.0, 3: None})
    assert found is not None
    assert (found.mean, found.std, found.seeds) == (2, 1, 3)
