"""Class counts of a split from facts, without reading a mask again."""

from __future__ import annotations

import numpy as np

from dropclass_deploy.core.classes import IGNORE_INDEX
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.facts import MaskFacts
from dropclass_deploy.data.statistics import ClassStatistics, Counts, Table


def count_split(evidence: Evidence, split: str) -> ClassStatistics:
    """What ``data.statistics.count_classes`` counts; values without a class and unreadable masks count nowhere.

    Raises:
        DataError: when the data set has no class table.
    """
    classes, labels = evidence.layout.classes, evidence.layout.labels
    if classes is None or labels is None:
        raise DataError(f"{evidence.layout.place} has no class table", expected="names and raw mask values")
    known = labels.known
    masks = [sample.mask for sample in evidence.of_split(split) if sample.mask is not None]
    by_image: Table = np.zeros((len(masks), len(classes)), dtype=np.uint32)
    for row, mask in zip(by_image, masks, strict=True):
        row[:] = _count(evidence.masks[mask], known, len(classes))
    return ClassStatistics.of(by_image)


def _count(facts: MaskFacts, known: dict[int, int], size: int) -> Counts:
    """Pixels of each class in one mask, int64 (C,)."""
    counts = np.zeros(size, dtype=np.int64)
    for value, pixels in facts.values:
        index = known.get(value, IGNORE_INDEX)
        if index != IGNORE_INDEX:
            counts[index] += pixels
    return counts
