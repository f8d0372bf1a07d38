"""Pixel counts a class and image: all that the parity rule needs of two sets of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import confusion_matrix, iou_of

Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image, int64 (C,) each; ignored pixels are left out of them, not of ``differing`` and ``pixels``."""

    truth: Counts
    reference_tp: Counts
    reference_predicted: Counts
    candidate_tp: Counts
    candidate_predicted: Counts
    differing: int
    pixels: int


@dataclass(frozen=True)
class PairedClassCounts:
    """Counts a class of n images, for the reference and the candidate on the same labels.

    Attributes:
        truth: labelled pixels, int64 (n, C).
        reference_tp: of them, those that the reference has right, int64 (n, C).
        reference_predicted: labelled pixels that the reference gives to the class, int64 (n, C).
        candidate_tp: as the reference's.
        candidate_predicted: as the reference's.
    """

    truth: Counts
    reference_tp: Counts
    reference_predicted: Counts
    candidate_tp: Counts
    candidate_predicted: Counts

    def reference_iou(self) -> npt.NDArray[np.float64]:
        """Pooled IoU a class, float64 (C,); NaN where the class occurs in neither."""
        return iou_of(self.reference_tp.sum(0), self.truth.sum(0), self.reference_predicted.sum(0))

    def candidate_iou(self) -> npt.NDArray[np.float64]:
        """Pooled IoU a class, float64 (C,); NaN where the class occurs in neither."""
        return iou_of(self.candidate_tp.sum(0), self.truth.sum(0), self.candidate_predicted.sum(0))


@dataclass(frozen=True)
class PairedCounts(PairedClassCounts):
    """The same, and how many pixels of the masks differ.

    Attributes:
        differing: pixels at which the two masks differ, of all images, ignored pixels included.
        pixels: of all images, ignored ones included.
    """

    differing: int
    pixels: int

    @property
    def disagreement(self) -> float:
        """Share of the pixels at which the two masks differ, in [0, 1]."""
        return self.differing / self.pixels


def count_image(label: Ids, reference: Ids, candidate: Ids, num_classes: int, ignore_index: int) -> ImageCounts:
    """Count one image.

    Args:
        label: class ids (H, W), ``ignore_index`` where nothing counts.
        reference: predicted ids (H, W).
        candidate: predicted ids (H, W).

    Raises:
        DataError: when shapes differ or an id lies outside [0, C).
    """
    first = confusion_matrix(label, reference, num_classes, ignore_index)
    second = confusion_matrix(label, candidate, num_classes, ignore_index)
    return ImageCounts(
        truth=first.sum(axis=1),
        reference_tp=np.diag(first),
        reference_predicted=first.sum(axis=0),
        candidate_tp=np.diag(second),
        candidate_predicted=second.sum(axis=0),
        differing=int(np.count_nonzero(reference != candidate)),
        pixels=int(label.size),
    )


def pair_counts(images: Sequence[ImageCounts]) -> PairedCounts:
    """Stack the counts of single images, in order.

    Raises:
        DataError: without any image.
    """
    if not images:
        raise DataError("there is no image to compare on", remedy="name a split that has images, or raise --limit")
    return PairedCounts(
        truth=np.stack([image.truth for image in images]),
        reference_tp=np.stack([image.reference_tp for image in images]),
        reference_predicted=np.stack([image.reference_predicted for image in images]),
        candidate_tp=np.stack([image.candidate_tp for image in images]),
        candidate_predicted=np.stack([image.candidate_predicted for image in images]),
        differing=sum(image.differing for image in images),
        pixels=sum(image.pixels for image in images),
    )
