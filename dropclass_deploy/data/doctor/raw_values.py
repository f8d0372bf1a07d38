"""The raw values of all single-channel masks together, held against the class map."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dropclass_deploy.core.classes import IGNORE_INDEX
from dropclass_deploy.data.doctor.edges import MIN_BORDER_PIXELS, SUSPECT_SHARE
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.facts import MaskFacts


@dataclass(frozen=True)
class RawValues:
    """Raw mask values with the pixels and the files that hold them.

    Attributes:
        pixels: by raw value.
        files: by raw value.
        known: class id, or 255 for "ignored", of each raw value that has a meaning; empty without a class table.
        masks: facts of every single-channel mask that could be read.
    """

    pixels: Counter[int]
    files: dict[int, list[Path]]
    known: dict[int, int]
    masks: dict[Path, MaskFacts]

    @classmethod
    def of(cls, evidence: Evidence) -> RawValues:
        """Pool the masks of all splits, each file once."""
        pixels: Counter[int] = Counter()
        files: dict[int, list[Path]] = {}
        masks = {path: facts for path, facts in evidence.masks.items() if facts.values}
        for path, facts in masks.items():
            for value, count in facts.values:
                pixels[value] += count
                files.setdefault(value, []).append(path)
        labels = evidence.layout.labels
        return cls(pixels, files, {} if labels is None else labels.known, masks)

    @cached_property
    def unknown(self) -> list[int]:
        """Raw values without a meaning, the most frequent first."""
        return [value for value, _ in self.pixels.most_common() if value not in self.known]

    @cached_property
    def unknown_files(self) -> list[Path]:
        """Masks that hold any of them."""
        holders = {path for value in self.unknown for path in self.files[value]}
        return [path for path in self.masks if path in holders]

    @property
    def total(self) -> int:
        """Pixels of all masks."""
        return self.pixels.total()

    def class_values(self) -> set[int]:
        """Raw values that mean a class."""
        return {value for value, index in self.known.items() if index != IGNORE_INDEX}

    def count(self, values: list[int]) -> int:
        """Pixels that hold any of the values."""
        return sum(self.pixels[value] for value in values)

    @cached_property
    def suspect_files(self) -> list[Path]:
        """Masks whose borders look interpolated."""
        return [
            path
            for path, facts in self.masks.items()
            if facts.border_pixels >= MIN_BORDER_PIXELS and facts.between_share > SUSPECT_SHARE
        ]

    def suspect_share(self) -> float:
        """Share of the masks with enough border to tell whose borders look interpolated."""
        telling = sum(facts.border_pixels >= MIN_BORDER_PIXELS for facts in self.masks.values())
        return len(self.suspect_files) / telling if telling else 0.0
