"""What an audit will take, read from the masks before a network is asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from dropclass_deploy.analysis.co_location.fills import Eraser, check_fill
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training.batches.ahead import decoded_ahead


@dataclass(frozen=True)
class AuditPlan:
    """The audit of one selection of images; the same for every run.

    Attributes:
        eraser: how pixels are replaced.
        images: N.
        images_with: (C,) how many of them have a pixel of each class.
        erasures: erased images whose prediction has to be made: a class and an image that has it and another one.
    """

    eraser: Eraser
    images: int
    images_with: tuple[int, ...]
    erasures: int

    @property
    def evaluations(self) -> int:
        """Predictions a run, the unerased ones among them."""
        return self.images + self.erasures

    def told(self, runs: int = 1) -> str:
        """What it takes, in a sentence for a terminal."""
        total = f", {runs * self.evaluations:,} for the {runs} runs" if runs > 1 else ""
        return (
            f"the co-location audit takes {self.evaluations:,} predictions a run{total}: "
            f"{self.images:,} images as they are, {self.erasures:,} with one class erased"
        )


def plan_audit(
    dataset: Dataset,
    indices: Sequence[int],
    fill: str = "dataset_mean",
    seed: int = 0,
    advance: Advance | None = None,
) -> AuditPlan:
    """Read images and masks once, decoded ahead in threads, without any network.

    The mean of "dataset_mean" is that of every pixel of the images to analyse, exact and rounded to whole RGB values: a
    colour that belongs to the data, where the mean of the preprocessing is that of what the network was pretrained on.

    Args:
        dataset: the split.
        indices: the images to analyse.
        fill: one of ``fills.FILLS``.
        seed: of the noise.
        advance: hears of each image.

    Raises:
        UserError: for an unknown fill.
        MissingExtraError: when the fill needs a package that is not installed.
        DataError: for a file that cannot be read.
    """
    known = check_fill(fill)
    count, ignore = len(dataset.classes), dataset.classes.ignore_index
    images_with = np.zeros(count, dtype=np.int64)
    erasures, total, pixels = 0, np.zeros(3, dtype=np.int64), 0
    with closing(decoded_ahead(dataset, indices)) as pairs:
        for done, (image, truth) in enumerate(pairs, start=1):
            present = classes_in(truth, ignore)
            images_with[list(present)] += 1
            erasures += len(to_erase(present))
            total += image.sum(axis=(0, 1), dtype=np.int64)
            pixels += truth.size
            if advance is not None:
                advance(done, len(indices))
    red, green, blue = (int(value) for value in np.rint(total / max(1, pixels)))
    eraser = Eraser(known, (red, green, blue), seed)
    return AuditPlan(eraser, len(indices), tuple(int(images) for images in images_with), erasures)


def planned_evaluations(dataset: Dataset, indices: Sequence[int]) -> int:
    """Predictions that the audit of one run takes, the unerased pass among them.

    Raises:
        DataError: for a file that cannot be read.
    """
    return plan_audit(dataset, indices).evaluations


def classes_in(truth: Pixels, ignore_index: int) -> tuple[int, ...]:
    """Ids in a mask (H, W), ascending, "ignore" left out."""
    counts = np.bincount(truth.ravel(), minlength=ignore_index + 1)
    return tuple(int(index) for index in np.flatnonzero(counts) if index != ignore_index)


def to_erase(present: tuple[int, ...]) -> tuple[int, ...]:
    """The classes whose erasure needs a prediction: none where one class alone is left to count, for nothing would be."""
    return present if len(present) > 1 else ()
