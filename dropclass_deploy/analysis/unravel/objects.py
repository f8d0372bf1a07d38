"""Connected objects of rare classes that a network finds: what is unravelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels

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
    labels = np.zeros(flags.shape, dtype=np.int64)
    parents = [0]
    above: list[tuple[int, int, int]] = []
    for row, line in enumerate(flags):
        here = []
        for start, end in _runs(line):
            # Runs of two rows touch when one begins no later than right after the other's end.
            touching = {_root(parents, label) for first, last, label in above if first <= end and last >= start}
            label = min(touching, default=len(parents))
            if label == len(parents):
                parents.append(label)
            for other in touching:
                parents[other] = label
            labels[row, start:end] = label
            here.append((start, end, label))
        above = here
    roots = np.array([_root(parents, label) for label in range(len(parents))])
    return np.unique(roots, return_inverse=True)[1].reshape(-1)[labels].astype(np.int64)


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
    object of each is taken. Each class's first object comes before any second one.

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
    predicted: dict[int, Pixels] = {}
    found: dict[int, list[FoundObject]] = {}
    for class_id in subject.classes.rare or range(len(subject.classes)):
        right = confusions[:, class_id, class_id]
        order = [int(place) for place in np.argsort(-right, kind="stable")[: 2 * per_class] if right[place] > 0]
        own = found.setdefault(class_id, [])
        for index in (indices[place] for place in order):
            if index not in predicted:
                predicted[index] = subject.segment(dataset.image(index))
            region = _largest_found(
                dataset.mask(index) == class_id, predicted[index] == class_id, min_pixels, min_recall
            )
            if region is not None and len(own) < per_class:
                own.append(FoundObject(index, class_id, region))
    rounds = [[own[turn] for own in found.values() if turn < len(own)] for turn in range(per_class)]
    return [one for turn in rounds for one in turn][:limit]


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


def _runs(line: Flags) -> list[tuple[int, int]]:
    """(start, end) of each stretch of a row, the end not in it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], line, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _root(parents: list[int], label: int) -> int:
    while parents[label] != label:
        label = parents[label]
    return label
