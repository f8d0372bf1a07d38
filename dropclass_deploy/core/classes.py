"""The class table: names, colours, which classes are rare, which label value means "ignore"."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Sequence
from reprlib import repr as short
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dropclass_deploy.core.errors import DataError

IGNORE_INDEX = 255
MAX_CLASSES = 255
"""Masks are uint8 and 255 is "ignore": ids 0 … 254 are left."""

Colour = tuple[int, int, int]


class ClassTable(BaseModel):
    """Classes of a data set or model, in id order.

    Attributes:
        names: one name a class; its position is the class id.
        palette: one RGB colour a class, 0–255.
        ignore_index: the label value that counts nowhere (255).
        rare: ids of the rare classes, ascending; empty until training pixels were counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=2, max_length=MAX_CLASSES)
    palette: tuple[Colour, ...] = ()
    ignore_index: int = IGNORE_INDEX
    rare: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("class names must differ from one another")
        if any(not name.strip() for name in self.names):
            raise ValueError("a class name must not be empty")
        if not self.palette:
            object.__setattr__(self, "palette", default_palette(len(self.names)))
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.palette)} colours for {len(self.names)} classes")
        if any(not 0 <= channel <= 255 for colour in self.palette for channel in colour):
            raise ValueError("a colour is three numbers from 0 to 255")
        if any(not 0 <= index < len(self.names) for index in self.rare):
            raise ValueError("a rare class id lies outside the class table")
        if 0 <= self.ignore_index < len(self.names):
            raise ValueError(
                f"ignore_index {self.ignore_index} is also the id of class {self.names[self.ignore_index]!r}"
            )
        return self

    def __len__(self) -> int:
        return len(self.names)

    def with_rare_from(self, pixel_counts: Sequence[int] | npt.NDArray[np.int64]) -> ClassTable:
        """The same table with the rare classes found from training pixels a class.

        Raises:
            DataError: when there is not one count a class.
        """
        if len(pixel_counts) != len(self):
            raise DataError(f"{len(pixel_counts)} pixel counts for {len(self)} classes", expected="one count a class")
        return self.model_copy(update={"rare": rare_classes(pixel_counts)})

    def is_rare(self, index: int) -> bool:
        """Whether class ``index`` is one of the rare classes."""
        return index in self.rare

    def check_same(self, other: ClassTable, ours: str, theirs: str) -> None:
        """Refuse a table with other classes, or the same ones in another order; see ``check_same_names``.

        Args:
            other: the table to hold against this one.
            ours: what this table belongs to, for messages.
            theirs: what ``other`` belongs to.

        Raises:
            DataError: naming the first difference.
        """
        check_same_names(self.names, other.names, ours, theirs)


def check_same_names(
    names: Sequence[str], others: Sequence[str], ours: str, theirs: str, *, allow_renamed: bool = False
) -> str:
    """Whether two lists of class names, in id order, mean the same ids.

    Case, underscores, hyphens and spaces do not count: "Road_Marking" is "road marking".

    Args:
        names: in id order.
        others: to be held against ``names``.
        ours: what ``names`` belong to, for messages.
        theirs: what ``others`` belong to.
        allow_renamed: let a class have another name, as long as no name stands at another id.

    Returns:
        A sentence that names the first difference where ``allow_renamed`` lets it pass, else "".

    Raises:
        DataError: when the numbers of classes, their order or (unless allowed) their names differ.
    """
    if len(names) != len(others):
        raise DataError(
            f"{theirs} has {len(others)} classes and {ours} {len(names)}",
            expected="the same number of classes",
            remedy="name the data that the network was trained for",
        )
    keys, other_keys = _comparable(names, others)
    differing = [index for index, key in enumerate(keys) if key != other_keys[index]]
    if not differing:
        return ""
    moved = [index for index in differing if keys[index] in other_keys]
    first = moved[0] if moved and allow_renamed else differing[0]
    sentence = f"class {first} is {short(names[first])} in {ours} and {short(others[first])} in {theirs}"
    if allow_renamed and not moved:
        return sentence
    raise DataError(
        sentence + (": the same classes in another order" if sorted(keys) == sorted(other_keys) else ""),
        expected="the same classes in the same order",
        remedy="name the data that the network was trained for, or give its classes the network's names and order",
    )


def _comparable(names: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both lists as they are compared: spelled alike, unless that makes two classes of one list the same."""
    first, second = ([re.sub(r"[\s_-]+", "", name).casefold() for name in each] for each in (names, others))
    if len(set(first)) < len(names) or len(set(second)) < len(others):
        return list(names), list(others)
    return first, second


def rare_classes(pixel_counts: Sequence[int] | npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Ids of the ⌊C/2⌋ classes with the fewest training pixels, ascending; equal counts go to the lower id.

    Source: DropClass (arXiv 2111.00531), section 4: the less frequent half of the classes (Cityscapes: 9 of 19).
    """
    counts = np.asarray(pixel_counts)
    order = np.argsort(counts, kind="stable")
    return tuple(sorted(int(index) for index in order[: len(counts) // 2]))


def default_palette(num_classes: int) -> tuple[Colour, ...]:
    """Distinct RGB colours: hues a golden angle apart, lightness alternating so that neighbours differ in grey too."""
    golden = 0.618033988749895
    colours: list[Colour] = []
    for index in range(num_classes):
        lightness = (0.45, 0.65, 0.3)[index % 3]
        red, green, blue = colorsys.hls_to_rgb((index * golden) % 1.0, lightness, 0.75)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)
