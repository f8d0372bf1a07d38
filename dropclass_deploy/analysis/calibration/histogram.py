"""How far a network's probabilities can be believed: reliability counts that stream over a split.

Two questions, both of labelled pixels only:

* *Top label* (Guo et al., arXiv 1706.04599, section 2): of the pixels given to some class with a confidence of about p, is
  a share of p right? Confidence is the largest softmax probability. Bins ((m − 1)/M, m/M]; the expected calibration error
  is ECE = Σ_m n_m/n · |accuracy_m − confidence_m|, over all pixels, or over those *predicted* as a class.
* *Classwise* (Kull et al., arXiv 1910.12656, section 2): of all pixels to which class c is given the probability p,
  whichever class wins, are a share of p of class c? The only one that says something of a class that never wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dropclass_deploy.analysis.subject import Seen
from dropclass_deploy.core.metrics import ratio

BINS = 15
"""As Guo et al."""

Counts = npt.NDArray[np.int64]
Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """Bins of one kind, (C, M) each.

    Attributes:
        pixels: int64.
        right: int64, of them those whose truth is the class.
        confidence: float64, the sum of their probabilities.
    """

    pixels: Counts
    right: Counts
    confidence: Sums

    @staticmethod
    def empty(num_classes: int, bins: int) -> Reliability:
        """Nothing counted yet."""
        shape = (num_classes, bins)
        return Reliability(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape))

    def pooled(self, rows: Sequence[int] | None = None) -> Reliability:
        """Classes (default all) as one, (1, M): the bins are added before any gap is taken."""
        chosen = slice(None) if rows is None else list(rows)
        return Reliability(
            *(each[chosen].sum(axis=0, keepdims=True) for each in (self.pixels, self.right, self.confidence))
        )

    def ece(self) -> Sums:
        """float64 (C,): expected calibration error; NaN without any pixel."""
        gaps = np.abs(self.right - self.confidence).sum(axis=1)
        return ratio(gaps, self.pixels.sum(axis=1))

    def accuracies(self) -> Sums:
        """float64 (C, M): share that is right; NaN in an empty bin."""
        return ratio(self.right, self.pixels)

    def confidences(self) -> Sums:
        """float64 (C, M): mean probability; NaN in an empty bin."""
        return ratio(self.confidence, self.pixels)

    def add(self, classes: Counts, probabilities: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> None:
        """Count pixels, (P,) each: the class that a probability is of, the probability, and whether it is the truth."""
        bins = self.pixels.shape[1]
        # A softmax may round to a hair above 1; exactly 0 belongs to the first bin.
        places = np.clip(np.ceil(probabilities * np.float32(bins)).astype(np.int64) - 1, 0, bins - 1)
        cells = classes * bins + places
        for total, weights in ((self.pixels, None), (self.right, right), (self.confidence, probabilities)):
            counted = np.bincount(cells, weights=weights, minlength=total.size).reshape(total.shape)
            total += counted.astype(total.dtype)

    def add_planes(self, probabilities: Tensor, usable: Tensor, truth: npt.NDArray[np.uint8]) -> None:
        """Count the probability of every class at every pixel, where the probabilities are.

        Args:
            probabilities: float32 (C, H, W).
            usable: bool (H, W), the pixels that count.
            truth: ids of those, (P,).
        """
        bins = self.pixels.shape[1]
        chosen, ids = usable.to(probabilities.device), torch.from_numpy(truth).to(probabilities.device)
        for index, plane in enumerate(probabilities):  # a class at a time: C · H · W float64 would be large
            values = plane[chosen]
            places = (values * bins).ceil_().sub_(1).clamp_(0, bins - 1).to(torch.int32)
            self.pixels[index] += places.bincount(minlength=bins).cpu().numpy()
            self.right[index] += places[ids == index].bincount(minlength=bins).cpu().numpy()
            self.confidence[index] += places.bincount(values.double(), minlength=bins).cpu().numpy()


class Calibration:
    """An observer of one network's pass over a split.

    Attributes:
        top: by *predicted* class.
        classwise: by class, all pixels in each; None when not asked for.
        unusable: labelled pixels whose logits are not finite; they are left out.
    """

    def __init__(self, num_classes: int, ignore_index: int, *, bins: int = BINS, classwise: bool = True) -> None:
        self._ignore_index = ignore_index
        self.top = Reliability.empty(num_classes, bins)
        self.classwise = Reliability.empty(num_classes, bins) if classwise else None
        self.unusable = 0

    @torch.inference_mode()
    def observe(self, seen: Seen) -> None:
        """Count an image; the softmax runs where the logits are."""
        labelled = seen.truth != self._ignore_index
        probabilities = seen.logits.softmax(dim=0)  # (C, H, W)
        confidence = _numpy(probabilities.amax(dim=0))
        usable = labelled & np.isfinite(confidence)
        self.unusable += int(np.count_nonzero(labelled & ~usable))
        truth, mask = seen.truth[usable], seen.mask[usable]
        self.top.add(mask.astype(np.int64), confidence[usable], mask == truth)
        if self.classwise is not None:
            self.classwise.add_planes(probabilities, torch.from_numpy(usable), truth)


def _numpy(plane: Tensor) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = plane.cpu().numpy()
    return values
