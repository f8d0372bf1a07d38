"""Pixel counts a class over a split, and the class weights that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import ratio
from dropclass_deploy.data.dataset import Dataset

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassStatistics:
    """Counts over one split, in class-id order.

    Attributes:
        pixels: (C,) pixels of each class.
        images: (C,) images that contain it.
        pixels_where_present: (C,) pixels that are not ignored, over the images that contain the class.
        num_images: of the split.
    """

    pixels: Counts
    images: Counts
    pixels_where_present: Counts
    num_images: int


def count_classes(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> ClassStatistics:
    """Count every mask of a data set once.

    Args:
        dataset: one split.
        progress: called as (masks done, masks in all) after each.

    Raises:
        DataError: when a mask cannot be read or holds an id outside the class table.
    """
    size, total = len(dataset.classes), len(dataset)
    pixels, images, where_present = (np.zeros(size, dtype=np.int64) for _ in range(3))
    for index in range(total):
        counts = _count_mask(dataset, index)
        present = counts > 0
        pixels += counts
        images += present
        where_present[present] += counts.sum()
        if progress is not None:
            progress(index + 1, total)
    return ClassStatistics(pixels, images, where_present, total)


def median_frequency_weights(stats: ClassStatistics) -> npt.NDArray[np.float64]:
    """Median frequency balancing: the weight of a class is median frequency / its frequency.

    The frequency of a class is its pixels over the pixels (not ignored) of the images that contain it; the median is
    over the classes that occur. A class without a pixel gets weight 0: it cannot occur in the loss.
    Source: Eigen and Fergus, arXiv 1411.4734, section 6.3.2; used with CamVid by SegNet, arXiv 1511.00561.

    Returns:
        float64 (C,).
    """
    frequency = ratio(stats.pixels, stats.pixels_where_present)
    present = stats.pixels > 0
    weights = np.zeros(len(frequency), dtype=np.float64)
    if present.any():
        weights[present] = np.median(frequency[present]) / frequency[present]
    return weights


def _count_mask(dataset: Dataset, index: int) -> Counts:
    """Pixels of each class in one mask, int64 (C,)."""
    classes = dataset.classes
    mask = dataset.mask(index)
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[classes.ignore_index] = 0
    if counts[len(classes) :].any():
        raise DataError(
            f"the mask of {dataset.key(index)!r} holds class id {int(np.flatnonzero(counts)[-1])}",
            expected=f"0 … {len(classes) - 1}, or {classes.ignore_index} for pixels to ignore",
        )
    return counts[: len(classes)].astype(np.int64)
