"""A picture and its label map, painted together: few shapes, each inside its bounding box only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Colour = Floats
"""(3,) float32 RGB, 0 … 255; may leave that range until the picture is finished."""

Shade = npt.NDArray[np.floating[Any]] | np.float32

Point = tuple[float, float]
"""(y, x) in pixels; pixel centres are whole numbers."""


@dataclass(frozen=True)
class Paint:
    """What a shape leaves behind.

    Attributes:
        colour: of its pixels.
        label: class id of its pixels, or None to leave the labels (shadows).
        opacity: of the colour; labels are always opaque.
        relief: how much lighter the side towards the light is, for shapes with volume.
    """

    colour: Colour
    label: int | None
    opacity: float = 1.0
    relief: float = 0.0


class Canvas:
    """A float picture and a label map of equal size.

    Attributes:
        image: float32 (H, W, 3), RGB, 0 … 255.
        mask: uint8 (H, W), class ids.
        light: −1 when the light comes from the left, 1 from the right.
    """

    def __init__(self, height: int, width: int, light: float) -> None:
        self.image: Floats = np.zeros((height, width, 3), dtype=np.float32)
        self.mask: npt.NDArray[np.uint8] = np.zeros((height, width), dtype=np.uint8)
        self.light = light

    def fill(self, where: Flags, colour: Floats, label: int) -> None:
        """Paint the pixels of a whole-picture flag array; ``colour`` is (3,) or (H, W, 3)."""
        np.copyto(self.image, colour, where=where[..., None])
        self.mask[where] = label

    def ellipse(self, centre: Point, radii: Point, paint: Paint) -> None:
        """A filled ellipse; ``radii`` along y and x."""
        (cy, cx), (ry, rx) = centre, (max(radii[0], 0.6), max(radii[1], 0.6))
        box = self._box(cy - ry, cy + ry, cx - rx, cx + rx)
        y, x = (box.y - cy) / ry, (box.x - cx) / rx
        self._blend(box, y * y + x * x <= 1.0, paint, 0.6 * self.light * x - 0.4 * y)

    def tapered(self, rows: Point, centre_x: float, widths: Point, paint: Paint) -> None:
        """A trapezium between two rows, (top, bottom), of the widths there; at least a pixel wide."""
        top, bottom = rows
        upper, lower = max(widths[0], 1.0) / 2, max(widths[1], 1.0) / 2
        reach = max(upper, lower)
        box = self._box(top, bottom, centre_x - reach, centre_x + reach)
        half = upper + (lower - upper) * (box.y - top) / max(bottom - top, 1.0)
        x = box.x - centre_x
        self._blend(box, (x >= -half) & (x < half), paint, self.light * x / reach)

    def line(self, start: Point, end: Point, width: float, paint: Paint) -> None:
        """A straight stroke with round ends, at least a pixel wide."""
        (y0, x0), (y1, x1), radius = start, end, max(width / 2, 0.55)
        box = self._box(min(y0, y1) - radius, max(y0, y1) + radius, min(x0, x1) - radius, max(x0, x1) + radius)
        dy, dx = y1 - y0, x1 - x0
        along = np.clip(((box.y - y0) * dy + (box.x - x0) * dx) / max(dy * dy + dx * dx, 1e-6), 0.0, 1.0)
        ry, rx = box.y - y0 - along * dy, box.x - x0 - along * dx
        self._blend(box, ry * ry + rx * rx <= radius * radius, paint, self.light * rx / radius)

    def ring(self, centre: Point, radii: Point, width: float, paint: Paint) -> None:
        """The rim of an ellipse, at least a pixel wide, inside its outline."""
        (cy, cx), (ry, rx) = centre, (max(radii[0], 0.8), max(radii[1], 0.8))
        box = self._box(cy - ry, cy + ry, cx - rx, cx + rx)
        y, x = box.y - cy, box.x - cx
        inner_y, inner_x = max(ry - max(width, 1.0), 0.1), max(rx - max(width, 1.0), 0.1)
        inside = (y / ry) ** 2 + (x / rx) ** 2 <= 1.0
        self._blend(box, inside & ((y / inner_y) ** 2 + (x / inner_x) ** 2 > 1.0), paint, np.float32(0.0))

    def _box(self, top: float, bottom: float, left: float, right: float) -> _Box:
        height, width = self.mask.shape
        y0, y1 = max(int(np.floor(top)), 0), min(int(np.ceil(bottom)) + 1, height)
        x0, x1 = max(int(np.floor(left)), 0), min(int(np.ceil(right)) + 1, width)
        return _Box(slice(y0, max(y0, y1)), slice(x0, max(x0, x1)))

    def _blend(self, box: _Box, inside: Flags, paint: Paint, towards_light: Shade) -> None:
        pixels = self.image[box.rows, box.columns]
        colour = paint.colour
        if paint.relief:
            relief = 1.0 + paint.relief * np.broadcast_to(towards_light, inside.shape)[..., None]
            colour = (colour * relief).astype(np.float32)
        if paint.opacity < 1.0:
            colour = pixels + (colour - pixels) * np.float32(paint.opacity)
        np.copyto(pixels, colour, where=inside[..., None], casting="same_kind")
        if paint.label is not None:
            self.mask[box.rows, box.columns][inside] = paint.label


class _Box:
    """A window of the canvas with the coordinates of its pixels."""

    def __init__(self, rows: slice, columns: slice) -> None:
        self.rows, self.columns = rows, columns
        self.y: Floats = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        self.x: Floats = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :]


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Noise between −1 and 1 that varies over about one cell; bilinear between random corners. float32 ``size``."""
    corners = rng.uniform(-1.0, 1.0, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    noise = _hat_weights(size[0], cells[0]) @ corners @ _hat_weights(size[1], cells[1]).T
    return noise.astype(np.float32, copy=False)


@lru_cache(maxsize=64)
def _hat_weights(size: int, cells: int) -> Floats:
    """Linear interpolation from ``cells`` + 1 corners to ``size`` pixels as a matrix (size, cells + 1)."""
    position = np.linspace(0.0, cells, size, dtype=np.float32)[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs(position - np.arange(cells + 1, dtype=np.float32)))
    return weights.astype(np.float32)


def rgb(*channels: float) -> Colour:
    """A colour from three numbers, 0 … 255."""
    return np.array(channels, dtype=np.float32)
