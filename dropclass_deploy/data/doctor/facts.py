"""What is known about one file after it was read once: plain data that a cache can keep.

A change of meaning here needs a new ``SCHEMA``, or old caches would be believed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dropclass_deploy.core.classes import Colour
from dropclass_deploy.core.errors import DataError

SCHEMA = 2
MAX_VALUES = 512
"""Distinct values (or colours) of a mask that are listed; a mask of classes holds at most 255."""


class Problem(BaseModel):
    """Why a file cannot be used, in the words of the reader that refused it.

    Attributes:
        kind: "unreadable" when the file is damaged; "form" when it decodes, to pixels of a kind that is not taken.
        found: what is wrong.
        expected: what would be right.
        remedy: what to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unreadable", "form"]
    found: str
    expected: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: DataError, kind: Literal["unreadable", "form"]) -> Problem:
        """The same words as the error."""
        return cls(kind=kind, found=error.found, expected=error.expected, remedy=error.remedy)


class FileFacts(BaseModel):
    """What an image file and a mask file have in common.

    Attributes:
        height: pixels; 0 when even the header cannot be read.
        width: pixels.
        mode: Pillow's name of the pixel format ("RGB", "P", "I;16" …).
        bits: a channel, as stored.
        problem: why the file cannot be used, if it cannot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int = 0
    width: int = 0
    mode: str = ""
    bits: int = 8
    problem: Problem | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class ImageFacts(FileFacts):
    """An image file.

    Attributes:
        digest: SHA-256 of the decoded pixels: equal for two encodings of the same picture; "" with a problem.
        orientation: of the EXIF tag, 1–8: 1 as stored, 6 to be shown turned by a quarter.
    """

    digest: str = ""
    orientation: int = 1

    @property
    def turned(self) -> bool:
        """Whether viewers show the picture otherwise than it is stored."""
        return self.orientation != 1


class MaskFacts(FileFacts):
    """A mask file.

    Attributes:
        values: (raw value, pixels), the most frequent first, at most MAX_VALUES; empty for a mask of colours.
        distinct: number of different raw values.
        colours: (colour, pixels) of a mask with several channels, the most frequent first, at most MAX_VALUES.
        distinct_colours: number of different colours; 0 for a mask of ids.
        palette: colour of each listed raw value when the file has a palette.
        border_pixels: pixels whose two horizontal or two vertical neighbours differ.
        between_pixels: those of them whose value lies strictly between these neighbours.
    """

    values: tuple[tuple[int, int], ...] = Field(default=(), max_length=MAX_VALUES)
    distinct: int = 0
    colours: tuple[tuple[Colour, int], ...] = Field(default=(), max_length=MAX_VALUES)
    distinct_colours: int = 0
    palette: dict[int, Colour] = {}
    border_pixels: int = 0
    between_pixels: int = 0

    @property
    def between_share(self) -> float:
        """Share of the border pixels whose value lies between their neighbours; 0 without a border."""
        return self.between_pixels / self.border_pixels if self.border_pixels else 0.0
