"""The masks of a few chosen images, predicted again when they are asked for: nobody keeps those of a whole split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels


@dataclass(frozen=True)
class Shown:
    """One image, uint8 (H, W, 3), its truth and every run's mask, uint8 (H, W)."""

    key: str
    image: Pixels
    truth: Pixels
    masks: tuple[Pixels, ...]


class ChosenMasks:
    """Images by their place in ``indices``, each predicted once by each run."""

    def __init__(self, subjects: Sequence[Subject], dataset: Dataset, indices: Sequence[int]) -> None:
        self._subjects, self._dataset, self._indices = subjects, dataset, indices
        self._known: dict[int, Shown] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the runs."""
        return tuple(subject.name for subject in self._subjects)

    @property
    def classes(self) -> ClassTable:
        """Of the first run, with its rare classes."""
        return self._subjects[0].classes

    def at(self, place: int) -> Shown:
        """The image at a place."""
        if place not in self._known:
            index = self._indices[place]
            image = self._dataset.image(index)
            masks = tuple(subject.segment(image) for subject in self._subjects)
            self._known[place] = Shown(self._dataset.key(index), image, self._dataset.mask(index), masks)
        return self._known[place]
