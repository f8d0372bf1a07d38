"""What becomes of a class when the fixated patches are blanked, against random patches of the same number and size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.data.images import Pixels

Flags = npt.NDArray[np.bool_]
Corners = list[tuple[int, int]]


@dataclass(frozen=True)
class Fall:
    """How far a class's IoU in one image falls; fractions, None where an IoU does not exist.

    Attributes:
        everywhere: over all labelled pixels.
        outside: over those that were not blanked, before and after: what the patches did to the rest.
    """

    everywhere: float | None
    outside: float | None


def patch_size(wanted: int, height: int, width: int) -> int:
    """Side of a patch: as wanted, or the image's shorter side."""
    return min(wanted, height, width)


def most_patches(wanted: int, size: int, height: int, width: int) -> int:
    """How many patches of ``size`` find room without overlap wherever the ones before them lie; at least 1."""
    places = (height - size + 1) * (width - size + 1)
    # A patch takes the corner of the next one away from (2 · size − 1)² places at most.
    return max(1, min(wanted, -(-places // (2 * size - 1) ** 2)))


def fixated_patches(weights: npt.NDArray[np.int64], size: int, count: int) -> Corners:
    """Top left corners of patches that do not overlap: each the heaviest left, the first in reading order of equals.

    Args:
        weights: (H, W) not negative.
        size: side of a patch, in pixels; patches lie in the image.
        count: at most so many; fewer where no weight is left.
    """
    sums = np.pad(weights.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    heavy = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    corners: Corners = []
    while len(corners) < count and heavy.max() > 0:
        top, left = (int(at) for at in np.unravel_index(int(heavy.argmax()), heavy.shape))
        corners.append((top, left))
        _take(heavy, top, left, size)
    return corners


def random_patches(height: int, width: int, size: int, count: int, generator: np.random.Generator) -> Corners:
    """As many patches that do not overlap, each uniform over the places left."""
    free = np.ones((height - size + 1, width - size + 1), dtype=np.int64)
    corners: Corners = []
    for _ in range(count):
        places = np.flatnonzero(free)
        top, left = divmod(int(places[generator.integers(len(places))]), free.shape[1])
        corners.append((top, left))
        _take(free, top, left, size)
    return corners


def covered(corners: Corners, size: int, height: int, width: int) -> Flags:
    """bool (height, width): the patches' pixels."""
    flags = np.zeros((height, width), dtype=np.bool_)
    for top, left in corners:
        flags[top : top + size, left : left + size] = True
    return flags


def fall_of(subject: Subject, image: Pixels, truth: Pixels, class_id: int, mask: Pixels, blank: Flags) -> Fall:
    """Blank pixels with the mean colour of the preprocessing, and see how far the class's IoU in this image falls.

    Args:
        subject: the network.
        image: uint8 (H, W, 3).
        truth: uint8 (H, W).
        class_id: whose IoU.
        mask: uint8 (H, W), the subject's of the image as it is.
        blank: bool (H, W).
    """
    changed = image.copy()
    changed[blank] = np.clip(np.rint(255 * np.asarray(subject.segment.preprocess.mean)), 0, 255).astype(np.uint8)
    after = subject.segment(changed)
    labelled = truth != subject.classes.ignore_index

    def fall(counted: Flags) -> float | None:
        pair = [class_iou(one, truth, class_id, counted) for one in (mask, after)]
        return None if pair[0] is None or pair[1] is None else pair[0] - pair[1]

    return Fall(fall(labelled), fall(labelled & ~blank))


def class_iou(mask: Pixels, truth: Pixels, class_id: int, counted: Flags) -> float | None:
    """Intersection over union of one class in one image; None where it occurs in neither."""
    own, true = (mask == class_id) & counted, (truth == class_id) & counted
    union = int((own | true).sum())
    return int((own & true).sum()) / union if union else None


def _take(places: npt.NDArray[np.int64], top: int, left: int, size: int) -> None:
    """No patch at the places from which it would overlap the one at (top, left)."""
    places[max(0, top - size + 1) : top + size, max(0, left - size + 1) : left + size] = 0
