"""Small pictures of an image with something drawn over it; each stays readable in grey."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from dropclass_deploy.data.images import Pixels, resize_image

Flags = npt.NDArray[np.bool_]

WIDTH = 400
"""Of a panel, in pixels: two stand side by side on a laptop, one fills a phone."""

_COLOURS = 192  # of a palette; a street loses nothing that the eye misses, and the file two thirds
# Dark to bright, so that more heat is also more light: black, dark red, orange, pale yellow.
_HEAT = np.array([[0, 0, 0], [150, 20, 20], [240, 120, 20], [255, 250, 170]], dtype=np.float64)


def panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a panel of an image: at most ``WIDTH`` wide; a small one as many times larger as fit."""
    if width <= WIDTH:
        times = min(WIDTH // width, 4)
        return height * times, width * times
    return max(1, round(height * WIDTH / width)), WIDTH


def photo_png(pixels: Pixels) -> bytes:
    """PNG bytes of uint8 (h, w, 3) in a palette of its own."""
    stream = io.BytesIO()
    flat = Image.fromarray(pixels).quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    flat.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def shrunk(image: Pixels) -> Pixels:
    """An image (H, W, 3) at its panel's size."""
    return resize_image(image, panel_size(*image.shape[:2]))


def heated(image: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """A dim grey image (H, W, 3), at its panel's size, under heat (H, W) ≥ 0 by its own largest value."""
    size = panel_size(*image.shape[:2])
    grey = shrunk(image).astype(np.float64).mean(axis=2, keepdims=True)
    weight = np.clip(_resized(heat, size) / (float(heat.max()) or 1.0), 0.0, 1.0)
    stops = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(weight, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1)
    # Half of the grey stays where nothing is: what lies under the map must be seen beside it.
    mixed: Pixels = np.rint((1 - 0.8 * weight[..., None]) * 0.5 * grey + 0.8 * weight[..., None] * colour).astype(
        np.uint8
    )
    return mixed


def outlined(panel: Pixels, region: Flags, colour: tuple[int, int, int] = (255, 255, 255)) -> Pixels:
    """A panel (h, w, 3) with the border of a region (H, W) drawn on the region's side, black beside it outside."""
    height, width = panel.shape[:2]
    small = _nearest(region, (height, width))
    grown = _spread(small)
    drawn = panel.copy()
    drawn[grown & ~small] = 0
    drawn[small & ~inside(small)] = colour
    return drawn


def inside(region: Flags) -> Flags:
    """Pixels of a region (H, W) whose four neighbours belong to it; beyond the edge of the picture all do."""
    inner: Flags = ~_spread(~region)
    return inner


def dotted(
    panel: Pixels, places: npt.NDArray[np.int64], size: tuple[int, int], strength: npt.NDArray[np.float64]
) -> Pixels:
    """A panel with a dot at each place of an image of ``size`` (height, width): yellow in black, larger where stronger.

    Args:
        panel: (h, w, 3).
        places: (P, 2), (y, x).
        size: of the image that the places are in.
        strength: (P,) from 0 to 1.
    """
    drawn = panel.copy()
    height, width = panel.shape[:2]
    rows = np.minimum((places[:, 0] + 0.5) * height / size[0], height - 1).astype(np.int64)
    columns = np.minimum((places[:, 1] + 0.5) * width / size[1], width - 1).astype(np.int64)
    radii = np.rint(2 * np.sqrt(strength)).astype(np.int64)
    for grow, colour in ((1, (0, 0, 0)), (0, (255, 235, 60))):
        for row, column, radius in zip(rows, columns, radii + grow, strict=True):
            top, left = max(0, row - radius), max(0, column - radius)
            drawn[top : row + radius + 1, left : column + radius + 1] = colour
    return drawn


def _resized(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float64)


def _nearest(flags: Flags, size: tuple[int, int]) -> Flags:
    rows = (np.arange(size[0]) * 2 + 1) * flags.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * flags.shape[1] // (2 * size[1])
    picked: Flags = flags[rows[:, None], columns]
    return picked


def _spread(flags: Flags) -> Flags:
    """With the four neighbours of every pixel; the image's own border is none."""
    wide = np.pad(flags, 1)
    around = [wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]]
    spread: Flags = flags | np.logical_or.reduce(around)
    return spread
