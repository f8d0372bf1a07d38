"""One file → facts. Whatever the bytes hold, facts come back and never an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from dropclass_deploy.core.classes import Colour
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import ValueRange
from dropclass_deploy.data.doctor.edges import count_borders
from dropclass_deploy.data.doctor.facts import MAX_VALUES, ImageFacts, MaskFacts, Problem
from dropclass_deploy.data.doctor.header import Header, decodes, read_header
from dropclass_deploy.data.images import Integers, Pixels, array_digest, read_image, read_mask


def scan_image(path: Path, value_range: ValueRange | None = None) -> ImageFacts:
    """Facts of an image file, decoded wholly as training decodes it."""
    try:
        header = read_header(path)
    except Exception as error:
        return ImageFacts(problem=_problem(path, error, "unreadable"))
    try:
        digest = array_digest(read_image(path, value_range))
    except Exception as error:
        return ImageFacts(**_of(header), problem=_refusal(path, error))
    return ImageFacts(**_of(header), digest=digest, orientation=header.orientation)


def scan_mask(path: Path) -> MaskFacts:
    """Facts of a mask file: its raw values or, when it has several channels, its colours."""
    try:
        header = read_header(path)
    except Exception as error:
        return MaskFacts(problem=_problem(path, error, "unreadable"))
    try:
        return _colours(header, read_image(path)) if header.channels > 1 else _values(header, read_mask(path))
    except Exception as error:
        return MaskFacts(**_of(header), problem=_refusal(path, error))


def _values(header: Header, raw: Integers) -> MaskFacts:
    values, counts = _frequent(raw)
    border, between = count_borders(raw)
    listed = tuple((int(value), int(count)) for value, count in zip(values, counts, strict=True))[:MAX_VALUES]
    return MaskFacts(
        **_of(header),
        values=listed,
        distinct=len(values),
        palette={value: header.palette[value] for value, _ in listed if 0 <= value < len(header.palette)},
        border_pixels=border,
        between_pixels=between,
    )


def _colours(header: Header, pixels: Pixels) -> MaskFacts:
    wide = pixels.astype(np.int32)
    packed, counts = _frequent(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])
    listed = zip(packed[:MAX_VALUES], counts[:MAX_VALUES], strict=True)
    colours = tuple((_unpack(int(colour)), int(count)) for colour, count in listed)
    return MaskFacts(**_of(header), colours=colours, distinct_colours=len(packed))


def _frequent(array: Integers) -> tuple[Integers, Integers]:
    """Distinct values and their counts, the most frequent first, equal counts by value."""
    if array.dtype == np.uint8:  # counting is many times faster than sorting
        all_counts = np.bincount(array.ravel(), minlength=256)
        values: Integers = np.flatnonzero(all_counts)
        counts: Integers = all_counts[values]
    else:
        values, counts = np.unique(array, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return values[order], counts[order]


def _unpack(packed: int) -> Colour:
    return packed >> 16, packed >> 8 & 255, packed & 255


def _of(header: Header) -> dict[str, Any]:
    """The facts that image and mask share."""
    return {"height": header.height, "width": header.width, "mode": header.mode, "bits": header.bits}


def _refusal(path: Path, error: Exception) -> Problem:
    """A file that decodes by itself was refused for its form, any other is damaged."""
    return _problem(path, error, "form" if isinstance(error, DataError) and decodes(path) else "unreadable")


def _problem(path: Path, error: Exception, kind: Literal["unreadable", "form"]) -> Problem:
    if isinstance(error, DataError):
        return Problem.of(error, kind)
    return Problem(
        kind="unreadable", found=f"{path} cannot be read ({type(error).__name__}: {error})", remedy="check the file"
    )
