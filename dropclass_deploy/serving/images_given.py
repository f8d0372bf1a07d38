"""Images as a caller hands them over: uint8 RGB, or raw values that the artifact's range turns into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.preprocess import ValueRange, window
from dropclass_deploy.core.sliding_window import MAX_PIXELS

AnyImage = npt.NDArray[Any]


def checked_image(image: AnyImage, value_range: ValueRange | None) -> AnyImage:
    """``image`` itself when it is uint8 (H, W, 3), or raw values (H, W) that a value range is there for.

    Raises:
        UserError: for anything else.
    """
    expected = "a uint8 NumPy array (height, width, 3), RGB, not empty"
    if value_range is not None:
        expected += ", or raw values (height, width) of any integer or float type"
    if not isinstance(image, np.ndarray):
        raise UserError(f"the image is a {type(image).__name__}", expected=expected)
    if _is_rgb(image) or (_is_raw(image) and value_range is not None):
        return image
    raise UserError(
        f"the image is {image.dtype} of shape {image.shape}",
        expected=expected,
        remedy="one channel needs an artifact whose preprocessing has a value_range" if _is_raw(image) else "",
    )


def checked_size(size: object) -> tuple[int, int]:
    """(height, width) of a mask, as plain integers.

    Raises:
        UserError: unless they are two whole numbers from 1, of no more pixels than an image may have.
    """
    if isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(side, int | np.integer) for side in size):
        height, width = map(int, size)
        if min(height, width) >= 1 and height * width <= MAX_PIXELS:
            return height, width
    raise UserError(
        f"the size of the mask is {size!r}"[:200],
        expected=f"(height, width) in pixels, whole numbers from 1, at most {MAX_PIXELS:,} pixels in all",
    )


def in_8_bits(image: AnyImage, value_range: ValueRange | None) -> npt.NDArray[np.uint8]:
    """A checked image as RGB: raw values windowed, anything else as it is."""
    return image if image.ndim == 3 or value_range is None else window(image, value_range)


def _is_rgb(image: AnyImage) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0


def _is_raw(image: AnyImage) -> bool:
    return image.dtype.kind in "iuf" and image.ndim == 2 and image.size > 0
