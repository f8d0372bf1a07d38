"""Statistics over seeds: means, and paired differences with their t-intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from dropclass_deploy.core.errors import MissingExtraError

CONFIDENCE = 0.95

BySeed = Mapping[int, float | None]
"""A figure of one setting; None where a seed has none (a class that occurs neither in truth nor in prediction)."""


@dataclass(frozen=True)
class Mean:
    """Over seeds; ``std`` is the sample standard deviation (n − 1), None for one seed."""

    mean: float
    std: float | None
    seeds: int


@dataclass(frozen=True)
class Difference:
    """Of a setting to a baseline, paired by seed, in the figures' own unit.

    Attributes:
        mean: of the differences.
        low: lower end of the 95 % t-interval, None for one seed.
        high: upper end.
        relative: the mean over the baseline's mean, None where that is 0.
        seeds: that both have.
    """

    mean: float
    low: float | None
    high: float | None
    relative: float | None
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_over_seeds(values: BySeed) -> Mean | None:
    """Mean and standard deviation over the seeds that have a figure; None when none has."""
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    return Mean(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def paired_difference(values: BySeed, baseline: BySeed) -> Difference | None:
    """Differences over the seeds that both have, with d̄ ± t(n−1) · s / √n; None when there is no such seed.

    Raises:
        MissingExtraError: without scipy, which has the quantiles of t.
    """
    pairs = [(value, baseline.get(seed)) for seed, value in sorted(values.items())]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not known:
        return None
    differences = [a - b for a, b in known]
    mean, base = statistics.fmean(differences), statistics.fmean(b for _, b in known)
    half = _half_width(differences)
    return Difference(
        mean=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        relative=mean / base if base else None,
        seeds=len(known),
    )


def _half_width(differences: list[float]) -> float | None:
    count = len(differences)
    if count < 2:
        return None
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingExtraError("scipy", "dev") from error
    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
