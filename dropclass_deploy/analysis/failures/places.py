"""Where on the image a network errs: by the distance to the class border, and by the size of the object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropclass_deploy.analysis.failures.border import border_pixels, squared_distance
from dropclass_deploy.analysis.failures.objects import SIZES, ObjectCounts
from dropclass_deploy.analysis.subject import Seen
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import Confusion, mean_of, ratio, scores, to_json

BANDS = (0, 1, 2, 4, 8, 16)
"""Pixels of distance from which a band begins. In the first lie the border's own pixels, in the last all those further
away, and those of images without any border."""


_BAND_OF = np.searchsorted(np.square(BANDS), np.arange((BANDS[-1] + 1) ** 2 + 1), side="right") - 1
"""The band of each squared distance: looked up, since a search for every pixel takes longer than all else here."""


class ErrorsByPlace:
    """An observer of one network's pass over a split.

    Attributes:
        bands: int64 (B, C, C), the confusion matrix of the pixels of each distance band, rows are the truth. A pixel's
            distance is that to the nearest *border pixel* of the truth: one beside a labelled pixel of another class. IoU
            in bands around the borders is the trimap measure of Kohli et al. (IJCV 2009).
        objects: by class and size.
    """

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        self._ignore_index = ignore_index
        self.bands = np.zeros((len(BANDS), num_classes, num_classes), dtype=np.int64)
        self.objects = ObjectCounts.empty(num_classes)

    def observe(self, seen: Seen) -> None:
        """Count an image; its ids are those that the sweep's confusion matrix has checked."""
        valid = seen.truth != self._ignore_index
        squared = squared_distance(border_pixels(seen.truth, self._ignore_index), BANDS[-1])
        bands = _BAND_OF[squared[valid]]
        classes = self.bands.shape[1]
        cells = (bands * classes + seen.truth[valid]) * classes + seen.mask[valid]
        self.bands += np.bincount(cells, minlength=self.bands.size).reshape(self.bands.shape)
        self.objects.add(seen.truth, seen.mask, valid)

    def distance_content(self, rare: Sequence[int]) -> list[dict[str, Any]]:
        """One object a band, of its pixels alone; means over the classes that the truth has in the band."""
        return [
            _band(start, end, confusion, rare)
            for start, end, confusion in zip(BANDS, (*BANDS[1:], None), self.bands, strict=True)
        ]

    def size_content(self, classes: ClassTable) -> dict[str, Any]:
        """Every class's figures by size, and means over classes: of all, and of the rare ones."""
        counts = self.objects
        iou, recall = ratio(counts.hits, counts.pixels + counts.spilled), ratio(counts.hits, counts.pixels)
        return {
            "bins": [_size_bin(counts, place, iou, classes.rare) for place in range(len(SIZES))],
            "classes": [
                {
                    "name": name,
                    "bins": [_class_bin(counts, index, place, iou, recall) for place in range(len(SIZES))],
                }
                for index, name in enumerate(classes.names)
            ],
        }


def _band(start: int, end: int | None, confusion: Confusion, rare: Sequence[int]) -> dict[str, Any]:
    figures = scores(confusion)
    # A class that is only predicted there would be a zero for one network and nothing for another.
    iou = np.where(figures.truth_pixels > 0, figures.iou, np.nan)
    return {
        "from": start,
        "to": end,
        "pixels": int(confusion.sum()),
        "classes": int(np.count_nonzero(figures.truth_pixels)),
        "accuracy": to_json(figures.pixel_accuracy),
        "miou": to_json(mean_of(iou)),
        "rare_miou": to_json(mean_of(iou[list(rare)])),
        "iou": [to_json(float(value)) for value in iou],
    }


def _size_bin(counts: ObjectCounts, place: int, iou: Any, rare: Sequence[int]) -> dict[str, Any]:
    """All classes together; only those with objects of that size have a part in the means."""
    return {
        "from": SIZES[place],
        "to": SIZES[place + 1] if place + 1 < len(SIZES) else None,
        "objects": int(counts.objects[:, place].sum()),
        "found": int(counts.found[:, place].sum()),
        "false_objects": int(counts.false_objects[:, place].sum()),
        "classes": int(np.count_nonzero(counts.objects[:, place])),
        "mean_iou": to_json(mean_of(iou[:, place])),
        "rare_mean_iou": to_json(mean_of(iou[list(rare), place])),
    }


def _class_bin(counts: ObjectCounts, index: int, place: int, iou: Any, recall: Any) -> dict[str, Any]:
    at = (index, place)
    return {
        "objects": int(counts.objects[at]),
        "found": int(counts.found[at]),
        "pixels": int(counts.pixels[at]),
        "iou": to_json(float(iou[at])),
        "recall": to_json(float(recall[at])),
        "spilled_pixels": int(counts.spilled[at]),
        "false_objects": int(counts.false_objects[at]),
        "false_pixels": int(counts.false_pixels[at]),
    }
