"""Connected objects of rare classes that a network finds: what is unravelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.regions import label_regions
from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels

MASKS_KEPT = 16
"""Predicted masks that are held while objects are looked for: a street's rare classes share their best images."""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoundObject:
    """One connected object of the truth.

    Attributes:
        index: of its image in the split.
        class_id: of it.
        region: bool (H, W), its pixels.
    """

    index: int
    class_id: int
    region: Flags


def connected_objects(flags: Flags) -> npt.NDArray[np.int64]:
    """Label what hangs together, diagonals included.

    Args:
        flags: bool (H, W).

    Returns:
        int64 (H, W): 0 outside, then 1, 2, … in the order of each object's first pixel.
    """
    return label_regions(flags, flags)[0] + 1


def find_objects(
    subject: Subject,
    dataset: Dataset,
    indices: Sequence[int],
    confusions: npt.NDArray[np.int64],
    *,
    limit: int,
    per_class: int,
    min_pixels: int,
    min_recall: float,
) -> list[FoundObject]:
    """Objects of the rare classes (of all, where none is rare) of which the subject finds a good part.

    Of each class, the images with most pixels right are looked at, twice as many as objects are wanted, and the largest such
    object of each is taken. The rarest class goes first, and each class's first object comes before any second one; no image
    is predicted once there are enough.

    Args:
        subject: the baseline.
        dataset: the split.
        indices: of the images that ``confusions`` are of.
        confusions: int64 (N, C, C), the subject's.
        limit: objects at most.
        per_class: of them of one class at most.
        min_pixels: of an object.
        min_recall: share of its pixels that the subject gives its class.
    """

    @lru_cache(maxsize=MASKS_KEPT)
    def predicted(index: int) -> Pixels:
        return subject.segment(dataset.image(index))

    def of_class(class_id: int) -> Iterator[FoundObject]:
        right = confusions[:, class_id, class_id]
        order = [int(place) for place in np.argsort(-right, kind="stable")[: 2 * per_class] if right[place] > 0]
        for index in (indices[place] for place in order):
            region = _largest_found(
                dataset.mask(index) == class_id, predicted(index) == class_id, min_pixels, min_recall
            )
            if region is not None:
                yield FoundObject(index, class_id, region)

    # Nothing is looked for before it is asked for.
    waiting = [islice(of_class(class_id), per_class) for class_id in _rarest_first(subject, confusions)]
    in_turn = chain.from_iterable(_rounds(waiting, per_class))
    return list(islice(in_turn, limit))


def _rarest_first(subject: Subject, confusions: npt.NDArray[np.int64]) -> list[int]:
    """The rare classes, or all, by training pixels; by the pixels of these images where the former were not counted."""
    pixels = subject.class_pixels or [int(count) for count in confusions.sum(axis=(0, 2))]
    return sorted(subject.classes.rare or range(len(subject.classes)), key=lambda one: (pixels[one], one))


def _rounds(waiting: Sequence[Iterator[FoundObject]], count: int) -> Iterator[Iterator[FoundObject]]:
    """Each time the next one of every class that has one left."""
    for _ in range(count):
        yield (found for one in waiting for found in islice(one, 1))


def _largest_found(truth: Flags, predicted: Flags, min_pixels: int, min_recall: float) -> Flags | None:
    labels = connected_objects(truth)
    pixels = np.bincount(labels.reshape(-1))
    right = np.bincount(labels[predicted], minlength=len(pixels))
    good = (pixels >= min_pixels) & (right >= min_recall * pixels)
    good[0] = False
    if not good.any():
        return None
    region: Flags = labels == np.where(good, pixels, 0).argmax()
    return region
