"""Which images calibrate and probe a quantised network: such that every class is seen, the rare ones first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels

POOL = 400
"""At most so many masks are counted, spread evenly over the split."""


class Chosen(Dataset):
    """Some images of a data set, in a given order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        self.spec, self.split, self.classes = dataset.spec, dataset.split, dataset.classes
        self.value_range = dataset.value_range
        self._dataset, self.indices = dataset, tuple(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        return self._dataset.key(self.indices[index])

    def image(self, index: int) -> Pixels:
        return self._dataset.image(self.indices[index])

    def mask(self, index: int) -> Pixels:
        return self._dataset.mask(self.indices[index])


def choose_images(dataset: Dataset, count: int, progress: Advance | None = None) -> Chosen:
    """``count`` images in which the classes take turns, the one with the fewest pixels first.

    Each turn takes the image, not taken yet, that holds most pixels of the class. Deterministic.

    Args:
        dataset: a training split: its labels decide.
        count: of images; fewer where the split is smaller.
        progress: told after each mask counted.

    Raises:
        DataError: when no class occurs in the labels.
    """
    pool = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), POOL)).round().astype(int))
    pixels = np.stack([_count(dataset, int(index), place, len(pool), progress) for place, index in enumerate(pool)])
    present = [int(label) for label in np.argsort(pixels.sum(axis=0), kind="stable") if pixels[:, label].sum()]
    if not present:
        raise DataError(f"no class occurs in split {dataset.split!r} of {dataset.spec}", expected="labelled images")
    return Chosen(dataset, [int(pool[place]) for place in taking_turns(pixels, present, count)])


def taking_turns(pixels: npt.NDArray[np.int64], order: Sequence[int], count: int) -> list[int]:
    """Rows of ``pixels`` (images, classes): classes in ``order`` take turns, each the row with most of its pixels left."""
    left = pixels.copy()
    taken: list[int] = []
    while len(taken) < min(count, len(pixels)):
        before = len(taken)
        for label in order:
            row = int(left[:, label].argmax())
            if left[row, label] > 0 and len(taken) < count:
                taken.append(row)
                left[row] = 0
        if len(taken) == before:
            # What is left holds no labelled pixel at all.
            taken += [row for row in range(len(pixels)) if row not in taken][: count - before]
    return taken


def _count(dataset: Dataset, index: int, place: int, total: int, progress: Advance | None) -> npt.NDArray[np.int64]:
    counts = np.bincount(dataset.mask(index).ravel(), minlength=256)[: len(dataset.classes)]
    if progress is not None:
        progress(place + 1, total, dataset.key(index))
    return counts.astype(np.int64)
