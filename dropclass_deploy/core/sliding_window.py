"""Sliding windows over large images: where they lie, how their logits are blended.

Positions, padding and weights are those of ``sliding_window_inference`` in MONAI 1.6 (https://github.com/Project-MONAI/MONAI,
``monai/inferers/utils.py``, ``monai/data/utils.py``), in two dimensions and with its default ``sigma_scale`` of 0.125:

* along each axis the windows start ``int(size · (1 − overlap))`` pixels after one another, at least 1; the last one is
  moved back so that it ends with the image;
* an axis shorter than the window is padded to it, half before and half after, with one pixel more after;
* logits are summed with the window's weights and divided by the sum of the weights, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from dropclass_deploy.core.errors import UserError

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Normalise = Callable[[Image], Floats]
"""uint8 (h, w, 3) → float32 (1, 3, h, w)."""
Network = Callable[[Floats], Floats]
"""float32 (n, 3, h, w), normalised → logits float32 (n, C, h, w) of the same height and width."""

MAX_PIXELS = 2**27
"""Of a window or of a resized image: about 400 MB of RGB; a specification that asks for more is a mistake or an attack."""
MOST_WINDOWS = 100_000
"""Of one image: MAX_PIXELS in windows of 512 × 512 that overlap by half are some 2,000."""
WINDOWS_AT_ONCE = 4
ROUNDING = 1e-9
"""5 · (1 − 0.8) is a pixel, less what binary fractions lose."""
SIGMA_SCALE = 0.125
LEAST_WEIGHT = 1e-3
_PADDING = {"reflect": "reflect", "replicate": "edge"}


class Window(BaseModel):
    """A window that slides over an image.

    Attributes:
        height: in pixels.
        width: in pixels.
        overlap: of neighbouring windows, as a share of the window, from 0 to below 1.
        blending: "constant" weighs all pixels of a window alike; "gaussian" weighs its middle more than its edges.
        padding: of images smaller than the window, after normalisation: "constant" (0, the mean colour), "reflect" or
            "replicate".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int
    width: int
    overlap: float = 0.25
    blending: Literal["constant", "gaussian"] = "constant"
    padding: Literal["constant", "reflect", "replicate"] = "constant"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if min(self.size) < 1 or self.height * self.width > MAX_PIXELS:
            raise ValueError(f"a window is height and width in pixels, each at least 1, at most {MAX_PIXELS} in all")
        if not 0.0 <= self.overlap < 1.0:
            raise ValueError("the overlap of windows is a share from 0 to below 1")
        if any(size > 1 and size * (1 - self.overlap) < 1 - ROUNDING for size in self.size):
            raise ValueError("windows overlap so far that they lie less than a pixel apart")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def weights(self) -> Floats:
        """float32 (height, width): what a window's logits are weighed with."""
        if self.blending == "constant":
            return np.ones(self.size, dtype=np.float32)
        across = np.outer(_bell(self.height), _bell(self.width)).astype(np.float32)
        return np.maximum(across, np.float32(max(float(across.min()), LEAST_WEIGHT)))


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis.

    Attributes:
        starts: first pixel of each in the image; one, 0, where the image is not longer than the window.
        inside: pixels of a window that lie in the image.
        before: pixels of padding in front of them.
        after: pixels of padding behind them.
    """

    starts: tuple[int, ...]
    inside: int
    before: int
    after: int


def window_starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """First pixel of each window along an axis of ``length`` pixels; (0,) where one window holds it all."""
    if length <= window:
        return (0,)
    interval = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // interval) + 1
    return tuple(min(index * interval, length - window) for index in range(count))


def central_window(image: Image, window: Window, fill: tuple[float, float, float]) -> Image:
    """One window from the middle of an image, uint8 (height, width, 3); what lies outside is ``fill`` (0 … 1, R, G, B)."""
    canvas = np.empty((*window.size, 3), dtype=np.uint8)
    canvas[:] = np.clip(np.rint(255 * np.asarray(fill)), 0, 255).astype(np.uint8)
    rows, columns = (_axis(size, own, 0.0) for size, own in zip(image.shape[:2], window.size, strict=True))
    top, left = (max(0, (size - own) // 2) for size, own in zip(image.shape[:2], window.size, strict=True))
    middle = image[top : top + rows.inside, left : left + columns.inside]
    canvas[rows.before : rows.before + rows.inside, columns.before : columns.before + columns.inside] = middle
    return canvas


def blended_rows(
    image: Image, window: Window, normalise: Normalise, network: Network, batch: int = WINDOWS_AT_ONCE
) -> Iterator[Floats]:
    """Logits of an image of any size, from windows, a strip of finished rows at a time, from top to bottom.

    Memory beside the image: the logits of the rows that windows still reach, float32 (C, window's height, W), and one batch
    of windows with its logits.

    Args:
        image: uint8 (H, W, 3), RGB.
        window: what slides.
        normalise: of one window's pixels.
        network: run on ``batch`` windows at most.
        batch: windows at once.

    Yields:
        float32 (C, rows, W); the rows of all strips are H together.

    Raises:
        UserError: when the image needs more than ``MOST_WINDOWS``.
    """
    rows, columns = (
        _axis(length, own, window.overlap) for length, own in zip(image.shape[:2], window.size, strict=True)
    )
    inner = (slice(rows.before, rows.before + rows.inside), slice(columns.before, columns.before + columns.inside))
    weights = window.weights()[inner]
    total = np.zeros((rows.inside, image.shape[1]), dtype=np.float32)
    summed: Floats | None = None
    _check_count(len(rows.starts) * len(columns.starts), image)
    for top, following in zip(rows.starts, (*rows.starts[1:], image.shape[0]), strict=True):
        pieces = (
            _planes(image[top : top + rows.inside, left : left + columns.inside], window, (rows, columns), normalise)
            for left in columns.starts
        )
        for left, logits in zip(columns.starts, _in_batches(pieces, network, batch), strict=True):
            if summed is None:
                summed = np.zeros((logits.shape[0], *total.shape), dtype=np.float32)
            place = slice(left, left + columns.inside)
            summed[:, :, place] += logits[:, *inner] * weights
            total[:, place] += weights
        if summed is not None:
            done = following - top
            yield summed[:, :done] / total[:done]
            _move_up(summed, done)
            _move_up(total[None], done)


def _axis(length: int, window: int, overlap: float) -> _Axis:
    missing = max(0, window - length)
    before = missing // 2
    return _Axis(window_starts(length, window, overlap), min(length, window), before, missing - before)


def _check_count(count: int, image: Image) -> None:
    if count > MOST_WINDOWS:
        height, width = image.shape[:2]
        raise UserError(
            f"an image of {width}×{height} pixels takes {count:,} windows",
            expected=f"at most {MOST_WINDOWS:,}",
            remedy="give a smaller image, or larger windows that overlap less",
        )


def _bell(size: int) -> Floats:
    distance = np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)
    bell: Floats = np.exp(distance**2 / np.float32(-2 * (SIGMA_SCALE * size) ** 2))
    return bell


def _planes(pixels: Image, window: Window, axes: tuple[_Axis, _Axis], normalise: Normalise) -> Floats:
    """Network input (1, 3, height, width) of the pixels of a window that lie in the image."""
    planes = normalise(pixels)
    widths = [(axis.before, axis.after) for axis in axes]
    if not any(map(any, widths)):
        return planes
    around = [(0, 0), (0, 0), *widths]
    if window.padding == "constant":
        return np.pad(planes, around)
    return np.pad(planes, around, mode=_PADDING[window.padding])  # type: ignore[call-overload,no-any-return]


def _in_batches(pieces: Iterator[Floats], network: Network, batch: int) -> Iterator[Floats]:
    """Logits (C, height, width) of each piece, in order."""
    waiting: list[Floats] = []
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == batch:
            yield from network(np.concatenate(waiting))
            waiting = []
    if waiting:
        yield from network(np.concatenate(waiting))


def _move_up(values: Floats, rows: int) -> None:
    """Drop the first rows of (…, rows, W) and make room for as many below."""
    kept = values.shape[1] - rows
    # Copied a plane at a time: source and target overlap.
    for plane in values:
        plane[:kept] = plane[rows:].copy()
        plane[kept:] = 0
