"""Paired bootstrap over images: how far ΔIoU of a class could have come out otherwise on such data.

Whole images are drawn with replacement, for the reference and the candidate the same ones; each draw pools the counts of
its images and gives one ΔIoU a class. The interval is the percentile interval of those.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.metrics import iou_of
from dropclass_deploy.serving.parity.counts import PairedClassCounts

RESAMPLES = 2000
"""Enough for a 95 % interval whose ends move by a few per cent of its width between seeds."""

PERCENTILES = (2.5, 97.5)
BLOCK = 250
"""Resamples at a time: bounds the memory of the weights for a data set of many images."""


def resample_weights(images: int, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each image is drawn: int64 (resamples, images), every row sums to ``images``."""
    return rng.multinomial(images, np.full(images, 1.0 / images), size=resamples)


def delta_samples(counts: PairedClassCounts, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """ΔIoU (candidate − reference) of each resample, float64 (resamples, C), fractions.

    NaN where the resample holds no truth pixel of the class: it says nothing about it.
    """
    # Sums of pixel counts stay far below 2**53, so the float64 products (which run in BLAS) are exact.
    draws = weights.astype(np.float64)
    truth = draws @ counts.truth
    reference = iou_of(draws @ counts.reference_tp, truth, draws @ counts.reference_predicted)
    candidate = iou_of(draws @ counts.candidate_tp, truth, draws @ counts.candidate_predicted)
    return np.where(truth > 0, candidate - reference, np.nan)


def delta_intervals(counts: PairedClassCounts, *, resamples: int = RESAMPLES, seed: int = 0) -> npt.NDArray[np.float64]:
    """95 % percentile interval of ΔIoU a class.

    Args:
        counts: of n images, C classes.
        resamples: number of draws.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        float64 (C, 2), lower and upper end, fractions; NaN for a class without truth pixels in any resample.
    """
    rng = np.random.default_rng(seed)
    images = counts.truth.shape[0]
    sizes = [min(BLOCK, resamples - start) for start in range(0, resamples, BLOCK)]
    samples = np.concatenate([delta_samples(counts, resample_weights(images, size, rng)) for size in sizes])
    return np.array([_interval(samples[:, index]) for index in range(samples.shape[1])])


def _interval(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    kept = samples[~np.isnan(samples)]
    return np.percentile(kept, PERCENTILES) if kept.size else np.full(2, np.nan)
