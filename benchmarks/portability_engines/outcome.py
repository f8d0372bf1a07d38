"""What one engine made of one file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST_LINE = 240
_PATHS = re.compile(r"(?:/[\w.+-]+)+/(?=[\w.+-])")
_ADDRESS = re.compile(r"https?://\S*")


@dataclass(frozen=True)
class Outcome:
    """A mask, or what there is instead.

    Attributes:
        mask: class ids (N, H, W), any number type; None from an engine that only builds.
        note: one line on what the figures cannot say.
    """

    mask: npt.NDArray[Any] | None
    note: str = ""


def one_line(error: BaseException | str, limit: int = LONGEST_LINE) -> str:
    """An error in one line, without the folders of the machine it happened on."""
    # A RuntimeError's name says nothing that its text does not.
    name = "" if isinstance(error, str) or type(error) is RuntimeError else f"{type(error).__name__}: "
    text = " ".join(str(error).split()) or "no message"
    return (name + _PATHS.sub("", _ADDRESS.sub("", text)))[:limit]


def compare(expected: npt.NDArray[Any], mask: npt.NDArray[Any]) -> int:
    """The number of pixels that differ; ids may come as floats (OpenCV has no integer tensors).

    Raises:
        ValueError: when the shapes differ.
    """
    if expected.shape != mask.shape:
        raise ValueError(f"the mask has shape {mask.shape}, expected {expected.shape}")
    return int((expected.astype(np.float64) != mask.astype(np.float64)).sum())
