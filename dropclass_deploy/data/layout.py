"""A data set's files as they lie on the disk, before anything is demanded of them.

Each format that keeps files says here which splits there are and which files belong to each; ``registry.open_dataset``
asks for whole pairs, the mask doctor looks at whatever is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import ValueRange
from dropclass_deploy.data.file_pairs import FilePair, natural_order, pair_files
from dropclass_deploy.data.label_map import LabelMap
from dropclass_deploy.data.split_rules import missing_split

__all__ = ["Layout", "SplitFiles", "ValueRange"]


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split; an image or a mask may lack its partner.

    Attributes:
        images: image file by stem; may hold more than the split's own.
        masks: mask file by stem of its image; may hold more than the split's own.
        stems: of the split, in order.
        mask_folder: where the masks are looked for, for messages.
    """

    images: Mapping[str, Path]
    masks: Mapping[str, Path]
    stems: Sequence[str]
    mask_folder: Path

    @classmethod
    def of_all(cls, images: Mapping[str, Path], masks: Mapping[str, Path], mask_folder: Path) -> Self:
        """A split of every file that there is, digits in their names read as numbers."""
        return cls(images, masks, sorted(images.keys() | masks.keys(), key=natural_order), mask_folder)

    def pairs(self) -> list[FilePair]:
        """Image and mask of every stem.

        Raises:
            DataError: listing the first stems that lack one, and how many do.
        """
        return pair_files(self.images, self.masks, self.stems, self.mask_folder)


@dataclass(frozen=True)
class Layout:
    """What a data set's folder holds.

    Attributes:
        spec: what named it, ``FORMAT:PATH``.
        place: the folder or file, for messages.
        splits: split name → function that lists its files (and raises DataError when they cannot be listed).
        classes: names and colours; None when the folder does not say (``folder:`` without a classes.yaml).
        labels: raw mask value → class id; None when ``classes`` is.
        value_range: raw image values that become 0 and 255, for images of one channel; None for 8-bit images as they are.
        title: of the format, for messages: "Cityscapes".
    """

    spec: str
    place: Path
    splits: Mapping[str, Callable[[], SplitFiles]]
    classes: ClassTable | None
    labels: LabelMap | None
    value_range: ValueRange | None = None
    title: str = ""

    def files(self, split: str) -> SplitFiles:
        """The files of one split.

        Raises:
            DataError: when there is no such split, or its files cannot be listed.
        """
        if split not in self.splits:
            what = f"{self.title} split" if self.title else "split"
            raise missing_split(f"{self.place} has no {what}", split, sorted(self.splits))
        return self.splits[split]()
