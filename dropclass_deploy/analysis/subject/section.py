"""What a part of the analysis gives: figures, and pictures that stand beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """One part, as it is written to disk; the page shows nothing else.

    Attributes:
        content: its key's value in ``analysis.json``: numbers (None where a figure does not exist), text, lists, objects.
        pictures: path below the output folder → the bytes of a PNG or SVG; ``content`` names those paths.
    """

    content: dict[str, Any]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
