"""Errors by the size of the object they are made on.

An object is an 8-connected region of one class in the truth. A prediction has no objects of its own that could be held
against it one to one, so an object's IoU is defined such that nothing counts twice and nothing is lost:

* intersection: its pixels that are predicted as its class;
* union: its pixels, and the *spilled* ones: false pixels of the predicted regions of its class that touch it. A predicted
  region that touches several objects belongs to the one it shares most pixels with (of equals, the first).

A predicted region that touches no object is a *false object*; it is counted by its own size. Summed over all sizes, the
intersections, and the unions with the false objects' pixels, are those of the pooled IoU. Ignored pixels belong to neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.regions import Bools, Integers, Labels, label_regions

SIZES = (1, 16, 64, 256, 1024, 4096, 16384)
"""Pixels from which a bin begins: each four times the one before, that is, twice the side."""

FOUND = 0.5
"""An object counts as found when at least this share of its pixels is predicted as its class."""

Counts = npt.NDArray[np.int64]


@dataclass
class ObjectCounts:
    """Sums over objects, int64 (C, len(SIZES)) each, by class and size.

    Attributes:
        objects: of the truth.
        found: of them, with at least ``FOUND`` of their pixels right.
        pixels: of them all.
        hits: of these pixels, those predicted as their class.
        spilled: false pixels of the predicted regions that belong to them.
        false_objects: predicted regions that touch no object.
        false_pixels: of them.
    """

    objects: Counts
    found: Counts
    pixels: Counts
    hits: Counts
    spilled: Counts
    false_objects: Counts
    false_pixels: Counts

    @staticmethod
    def empty(num_classes: int) -> ObjectCounts:
        """Nothing counted yet."""
        return ObjectCounts(*(np.zeros((num_classes, len(SIZES)), dtype=np.int64) for _ in range(7)))

    def add(self, truth: Integers, mask: Integers, valid: Bools) -> None:
        """Count the objects of one image.

        Args:
            truth: (H, W) class ids.
            mask: (H, W) predicted ids.
            valid: (H, W), False where nothing counts.
        """
        objects, object_count = label_regions(truth, valid)
        regions, region_count = label_regions(mask, valid)
        right = valid & (truth == mask)
        owners = _owners(objects[right], regions[right], object_count, region_count)
        false = np.bincount(regions[valid & ~right], minlength=region_count)
        owned = owners >= 0
        spilled = np.zeros(object_count, dtype=np.int64)
        np.add.at(spilled, owners[owned], false[owned])

        areas = np.bincount(objects[valid], minlength=object_count)
        hits = np.bincount(objects[right], minlength=object_count)
        cells = self._cells(_values(objects, truth, object_count, valid), areas)
        found = (hits >= FOUND * areas).astype(np.int64)
        ones = np.ones_like(areas)
        for total, amount in (
            (self.objects, ones),
            (self.found, found),
            (self.pixels, areas),
            (self.hits, hits),
            (self.spilled, spilled),
        ):
            np.add.at(total, cells, amount)
        cells = self._cells(_values(regions, mask, region_count, valid)[~owned], false[~owned])
        np.add.at(self.false_objects, cells, 1)
        np.add.at(self.false_pixels, cells, false[~owned])

    @staticmethod
    def _cells(classes: Labels, areas: Labels) -> tuple[Labels, Labels]:
        return classes, np.searchsorted(SIZES, areas, side="right") - 1


def _owners(objects: Labels, regions: Labels, object_count: int, region_count: int) -> Labels:
    """For each predicted region the object that it shares most pixels with, −1 for none; given all shared pixels."""
    pairs, shared = np.unique(regions * max(object_count, 1) + objects, return_counts=True)
    owners = np.full(region_count, -1, dtype=np.int64)
    # Ascending by pixels, of equals the later object first: the last one written is the largest and the first.
    order = np.lexsort((-pairs, shared))
    owners[pairs[order] // max(object_count, 1)] = pairs[order] % max(object_count, 1)
    return owners


def _values(labels: Labels, values: Integers, count: int, valid: Bools) -> Labels:
    """The value that each region has."""
    result = np.zeros(count, dtype=np.int64)
    result[labels[valid]] = values[valid]
    return result
