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
Table = npt.NDArray[np.uint32]
"""Pixels of each class in each image, (images, C): four bytes a number, 8 MB for 100,000 images of 19 classes."""


@dataclass(frozen=True)
class ClassStatistics:
    """Counts over one split, in class-id order.

    Attributes:
        pixels: (C,) pixels of each class.
        images: (C,) images that contain it.
        pixels_where_present: (C,) pixels that are not ignored, over the images that contain the class.
        num_images: of the split.
        by_image: (images, C) pixels of each class in each image, in the split's order.
    """

    pixels: Counts
    images: Counts
    pixels_where_present: Counts
    num_images: int
    by_image: Table

    @classmethod
    def of(cls, by_image: Table) -> ClassStatistics:
        """All that follows from the pixels of each class in each image, (images, C)."""
        labelled = by_image.sum(axis=1, dtype=np.int64)
        # Class by class: a product over the whole table would be twice as large as it.
        present = [column > 0 for column in by_image.T]
        return cls(
            pixels=by_image.sum(axis=0, dtype=np.int64),
            images=np.array([where.sum() for where in present], dtype=np.int64),
            pixels_where_present=np.array([labelled[where].sum() for where in present], dtype=np.int64),
            num_images=len(by_image),
            by_image=by_image,
        )


def count_classes(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> ClassStatistics:
    """Count every mask of a data set once.

    Args:
        dataset: one split.
        progress: called as (masks done, masks in all) after each.

    Raises:
        DataError: when a mask cannot be read or holds an id outside the class table.
    """
    total = len(dataset)
    by_image: Table = np.zeros((total, len(dataset.classes)), dtype=np.uint32)
    for index in range(total):
        by_image[index] = _count_mask(dataset, index)
        if progress is not None:
            progress(index + 1, total)
    return ClassStatistics.of(by_image)


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


def enet_weights(stats: ClassStatistics, c: float) -> npt.NDArray[np.float64]:
    """ENet's class weights: 1 / ln(``c`` + p), p the class's share of all pixels that are not ignored.

    ``c`` bounds them: between 1 / ln(1 + c) and 1 / ln(c), 1.4 and 50.5 for c = 1.02. A class without a pixel gets weight 0,
    as in ``median_frequency_weights``.
    Source: Paszke et al., arXiv 1606.02147, section 5.2.

    Returns:
        float64 (C,).
    """
    shares = stats.pixels / max(1, stats.pixels.sum())
    return np.where(stats.pixels > 0, 1.0 / np.log(c + shares), 0.0)


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
