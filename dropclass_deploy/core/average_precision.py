"""Average precision of every class against the rest, from counts that stream.

Pixels are too many to sort: 500 frames of 1024×2048 hold 10⁹ scores a class. They are counted in bins instead, which add up
over images and processes, and the average precision is that of the binned scores.

The bins are no equal steps of the probability. A confident network gives nearly all its probabilities within 0.001 of 0
or 1, and a rare class may never be given more than that: steps of 1/1,000 then put the average precision off by up to 0.18
(11 classes, 400,000 simulated pixels, logits of a standard deviation of 8; steps of 1/4,000 as much). So a bin is as wide as
a 256th of the power of two below min(p, 1 − p), which is about a step of the logit and costs no logarithm: float32 holds
those bits ready. In six such simulations (logits of a standard deviation from 0.6 to 10, classes down to 16 pixels) the
largest error of a class against scikit-learn was 0.0016, of the mean 0.0006; ``bounds`` says how far it can be off for the
counts at hand (by 0.005 there at most).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import mean_of, ratio, to_json

Counts = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]

_KEPT_BITS = 8  # of float32's 23 bits behind the leading one: 2⁸ bins for each power of two
_SHIFT = 23 - _KEPT_BITS
_HALF = 126 << _KEPT_BITS  # where 0.5 lies: float32 writes 2^e as e + 127
# One bin lies beyond either end: for what is below 2⁻⁴⁰, and for 1 itself (float32's next lower number is 1 − 2⁻²⁴).
_LOWEST = ((127 - 40) << _KEPT_BITS) - 1
_HIGHEST = ((127 - 24) << _KEPT_BITS) - 1
BINS = 2 * _HALF - _LOWEST - _HIGHEST + 1


def bins_of(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """The bin of each probability in [0, 1], in [0, ``BINS``); it never falls where the probability rises."""
    from_half = np.minimum(probabilities, np.float32(1) - probabilities)  # 1 − p is exact from 0.5 on
    place = from_half.view(np.int32) >> _SHIFT
    below = np.maximum(place, _LOWEST) - _LOWEST
    above = 2 * _HALF - _LOWEST - np.maximum(place, _HIGHEST)
    bins: npt.NDArray[np.int32] = np.where(probabilities < 0.5, below, above)
    return bins


class PrecisionHistogram:
    """Counts of the pixels of each class, and of the others, by their score for that class.

    Attributes:
        counts: int64 (2, C, BINS), first the pixels of other classes, then those of the class; histograms of other images
            or processes are added element by element.
        ignore_index: the label value that counts nowhere.
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        self.counts: Counts = np.zeros((2, num_classes, BINS), dtype=np.int64)
        self.ignore_index = ignore_index

    def update(self, probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.integer[Any]]) -> None:
        """Count the labelled pixels of an image.

        Args:
            probabilities: (C, P), the softmax over the classes; taken as float32.
            labels: (P,) class ids.

        Raises:
            DataError: when the shapes differ, a probability lies outside [0, 1] or a label outside [0, C).
        """
        count = self.counts.shape[1]
        if labels.ndim != 1 or probabilities.shape != (count, labels.size):
            raise DataError(
                f"there are probabilities of shape {probabilities.shape} and labels of shape {labels.shape}",
                expected=f"({count}, P) and (P,)",
            )
        labelled = labels != self.ignore_index
        if not labelled.all():
            probabilities, labels = probabilities[:, labelled], labels[labelled]
        if not labels.size:
            return
        scores = np.ascontiguousarray(probabilities, dtype=np.float32)
        _check_range("probability", scores, 1)
        _check_range("label", labels, count - 1)
        for index in range(count):
            places = bins_of(scores[index]) + BINS * (labels == index)
            self.counts[:, index] += np.bincount(places, minlength=2 * BINS).reshape(2, BINS)

    def __add__(self, other: PrecisionHistogram) -> PrecisionHistogram:
        """The counts of both."""
        if self.counts.shape != other.counts.shape:
            raise DataError(
                f"the histograms have {self.counts.shape[1]} and {other.counts.shape[1]} classes",
                expected="equally many",
            )
        total = PrecisionHistogram(self.counts.shape[1], self.ignore_index)
        total.counts = self.counts + other.counts
        return total

    def average_precision(self) -> Figures:
        """(C,) in [0, 1]; NaN for a class without a pixel.

        AP = Σ_b (R_b − R_{b+1}) P_b over the bins from the highest score down, P_b and R_b the precision and the recall of
        "the score lies in bin b or above", as scikit-learn defines it for scores with ties.
        """
        negatives, positives = self._from_the_top()
        return _mean_credit(ratio(positives.cumsum(axis=1), (positives + negatives).cumsum(axis=1)), positives)

    def bounds(self) -> tuple[Figures, Figures]:
        """Two (C,) between which the average precision of the scores themselves lies, whatever their order in each bin.

        With T positives among the N pixels of higher bins, and k positives and n negatives in this one: a positive counts
        most where all k come first with one score, (T + k) / (N + k), and the k count least where all n come first, one
        by one: Σᵢ (T + i) / (N + n + i) over i = 1 … k, which is no less than its integral from 0 to k.
        """
        negatives, positives = self._from_the_top()
        true = positives.cumsum(axis=1) - positives
        total = true + negatives.cumsum(axis=1)  # N + n
        false = total - true
        upper = ratio(true + positives, total - negatives + positives)
        log = np.log1p(ratio(positives, total), where=total > 0, out=np.zeros(total.shape))
        lower = ratio(positives - false * log, positives)
        # The highest bin holds nothing but 1: one score, whose credit is known.
        upper[:, 0] = lower[:, 0] = ratio(positives[:, 0], total[:, 0] + positives[:, 0])
        return _mean_credit(lower, positives), _mean_credit(upper, positives)

    @property
    def map(self) -> float:
        """Mean of the average precision over the classes that have a pixel; NaN when there is none."""
        return mean_of(self.average_precision())

    @property
    def wgap(self) -> float:
        """The average precision of the worst class; NaN when no class has a pixel."""
        worst = self.wgap_class
        return float("nan") if worst is None else float(self.average_precision()[worst])

    @property
    def wgap_class(self) -> int | None:
        """The id of the worst class, the lowest of equals; None when no class has a pixel."""
        values = self.average_precision()
        return None if np.isnan(values).all() else int(np.nanargmin(values))

    def _from_the_top(self) -> tuple[Counts, Counts]:
        """(C, BINS) negatives and positives, highest scores first."""
        return self.counts[0, :, ::-1], self.counts[1, :, ::-1]


def precision_json(histogram: PrecisionHistogram, classes: ClassTable) -> dict[str, Any]:
    """The figures of ``histogram`` as JSON values, classes by name in id order; ``from`` and ``to`` are the bounds."""
    worst, figures = histogram.wgap_class, (histogram.average_precision(), *histogram.bounds())
    return {
        "map": to_json(histogram.map),
        "wgap": to_json(histogram.wgap),
        "wgap_class": None if worst is None else classes.names[worst],
        "ap": [
            {"name": name, "ap": to_json(value), "from": to_json(lower), "to": to_json(upper)}
            for name, value, lower, upper in zip(classes.names, *figures, strict=True)
        ],
    }


def _mean_credit(credit: Figures, positives: Counts) -> Figures:
    """(C,) mean over the positives of what one in each bin counts, (C, BINS); NaN for a class without any."""
    counted = np.where(positives > 0, credit, 0.0)
    return ratio((positives * counted).sum(axis=1), positives.sum(axis=1))


def _check_range(what: str, values: npt.NDArray[Any], highest: int) -> None:
    # NaN passes neither comparison.
    if not (values.min() >= 0 and values.max() <= highest):
        raise DataError(f"there is a {what} from {values.min()} to {values.max()}", expected=f"0 … {highest}")
