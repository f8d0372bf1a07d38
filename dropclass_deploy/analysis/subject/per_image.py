"""Figures of single images, from their confusion matrices."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.metrics import iou_of

Confusions = npt.NDArray[np.int64]
"""(N, C, C): one confusion matrix an image, rows are the truth, as ``sweep`` gives them."""

Figures = npt.NDArray[np.float64]


def image_ious(confusions: Confusions) -> Figures:
    """float64 (N, C): IoU a class and image; NaN where the image's truth has no pixel of the class."""
    truth = confusions.sum(axis=2)
    iou = iou_of(np.diagonal(confusions, axis1=1, axis2=2), truth, confusions.sum(axis=1))
    return np.where(truth > 0, iou, np.nan)


def image_means(confusions: Confusions) -> Figures:
    """float64 (N,): mean of an image's IoUs over the classes of its truth; NaN for an image without labelled pixels.

    Never a substitute for the pooled mIoU: an image's classes weigh alike however small they are in it. It says which
    images differ.
    """
    ious = image_ious(confusions)
    known = ~np.isnan(ious)
    counts = known.sum(axis=1)
    sums = np.where(known, ious, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
