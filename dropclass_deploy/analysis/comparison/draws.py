"""What a comparison of two networks could have come out as on other images of the kind: a paired bootstrap.

Whole images are drawn with replacement, the same for both networks. Every draw pools the counts of its images and gives one
ΔIoU a class, one ΔmIoU, one Δ of the rare mIoU, and one mean of the images' own differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.subject import Confusions, image_means
from dropclass_deploy.serving.parity.bootstrap import BLOCK, PERCENTILES, delta_samples, resample_weights
from dropclass_deploy.serving.parity.counts import PairedClassCounts

RESAMPLES = 10_000
"""So many that a chance of 0.05 / 150 classes is still told from none."""

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """Differences, candidate − baseline, of R draws; fractions, NaN where a draw says nothing.

    Attributes:
        classes: float64 (R, C), ΔIoU.
        miou: float64 (R,), the mean of ΔIoU over the classes that the draw's truth has.
        rare_miou: float64 (R,), over the rare ones of them.
        image_mean: float64 (R,), the mean over the drawn images of their own differences.
    """

    classes: Figures
    miou: Figures
    rare_miou: Figures
    image_mean: Figures


def paired_counts(baseline: Confusions, candidate: Confusions) -> PairedClassCounts:
    """Counts a class and image, from confusion matrices (N, C, C) of the same images."""
    return PairedClassCounts(
        truth=baseline.sum(axis=2),
        reference_tp=np.diagonal(baseline, axis1=1, axis2=2),
        reference_predicted=baseline.sum(axis=1),
        candidate_tp=np.diagonal(candidate, axis1=1, axis2=2),
        candidate_predicted=candidate.sum(axis=1),
    )


def draw_differences(
    baseline: Confusions, candidate: Confusions, rare: Sequence[int], *, resamples: int = RESAMPLES, seed: int = 0
) -> Draws:
    """Draw ``resamples`` times.

    Args:
        baseline: int64 (N, C, C).
        candidate: int64 (N, C, C), of the same images.
        rare: ids of the rare classes.
        resamples: number of draws.
        seed: of the draws; equal seeds give equal figures.
    """
    counts = paired_counts(baseline, candidate)
    differences = image_means(candidate) - image_means(baseline)
    known = ~np.isnan(differences)
    rng = np.random.default_rng(seed)
    classes, image_mean = [], []
    for start in range(0, resamples, BLOCK):
        weights = resample_weights(len(baseline), min(BLOCK, resamples - start), rng)
        classes.append(delta_samples(counts, weights))
        image_mean.append(_quotient(weights @ np.where(known, differences, 0.0), weights @ known))
    deltas = np.concatenate(classes)
    return Draws(deltas, mean_difference(deltas), mean_difference(deltas[:, list(rare)]), np.concatenate(image_mean))


def mean_difference(deltas: Figures) -> Figures:
    """Mean of ΔIoU over the classes that are not NaN; float64 (…,) of (…, C).

    The mean of differences is the difference of the mIoUs over those classes. A class without truth is left out: false
    pixels of one network would be a zero for it and nothing for the other.
    """
    known = ~np.isnan(deltas)
    return _quotient(np.where(known, deltas, 0.0).sum(axis=-1), known.sum(axis=-1))


def interval(samples: Figures) -> tuple[float, float]:
    """95 % percentile interval; NaN, NaN without any draw."""
    kept = samples[~np.isnan(samples)]
    if not kept.size:
        return float("nan"), float("nan")
    low, high = np.percentile(kept, PERCENTILES)
    return float(low), float(high)


def chance(samples: Figures) -> float:
    """Two-sided bootstrap p-value of "no difference": twice the share of draws on the rarer side of 0, itself on both.

    With the usual + 1, so that no finite number of draws gives 0. 1 without any draw.
    """
    kept = samples[~np.isnan(samples)]
    rarer = min(np.count_nonzero(kept <= 0), np.count_nonzero(kept >= 0))
    return min(1.0, 2 * (rarer + 1) / (kept.size + 1))


def _quotient(numerator: npt.NDArray[Any], denominator: npt.NDArray[np.int64]) -> Figures:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)
