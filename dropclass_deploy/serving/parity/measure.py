"""Both sides on every image of a data set: counts for the rule, and everything else that was noticed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.serving.parity.counts import ImageCounts, PairedCounts, count_image, pair_counts
from dropclass_deploy.serving.parity.sides import Prediction, Sample, Side


@dataclass(frozen=True)
class Measurement:
    """What the whole data set gave.

    Attributes:
        counts: for the rule.
        problems: sentences that make the gate fail whatever the figures say.
        notes: sentences that a reader should know.
        logits_disagreement: share of the pixels at which an artifact's logits and mask files disagree; None where there
            is only one file.
    """

    counts: PairedCounts
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    logits_disagreement: float | None


def measure(
    dataset: Dataset, reference: Side, candidate: Side, *, limit: int | None = None, progress: Advance | None = None
) -> Measurement:
    """Run both sides on the first ``limit`` images.

    Raises:
        DataError: for an empty split, an image that cannot be decoded, or class ids outside the class table.
    """
    total = len(dataset) if limit is None else min(limit, len(dataset))
    images: list[ImageCounts] = []
    found = _Findings()
    for index in range(total):
        sample = Sample(dataset.key(index), dataset.image(index), dataset.mask(index))
        first, second = reference.predict(sample), candidate.predict(sample)
        found.add(sample.key, first)
        found.add(sample.key, second)
        classes = dataset.classes
        images.append(count_image(sample.label, first.mask, second.mask, len(classes), classes.ignore_index))
        if progress is not None:
            progress(index + 1, total, sample.key)
    return Measurement(pair_counts(images), found.problems(), found.notes(), found.logits_disagreement())


class _Findings:
    """Problems and notes by kind, so that a thousand images with one fault make one sentence."""

    def __init__(self) -> None:
        self._problems: dict[str, list[str]] = defaultdict(list)
        self._notes: dict[str, None] = {}
        self._differing = self._pixels = 0

    def add(self, key: str, prediction: Prediction) -> None:
        for problem in prediction.problems:
            self._problems[problem].append(key)
        self._notes |= dict.fromkeys(prediction.notes)
        self._differing += prediction.logits_differing
        self._pixels += prediction.logits_pixels

    def problems(self) -> tuple[str, ...]:
        return tuple(f"{problem}: {_images(keys)}" for problem, keys in self._problems.items())

    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def logits_disagreement(self) -> float | None:
        return self._differing / self._pixels if self._pixels else None


def _images(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"image {keys[0]}{more}"
