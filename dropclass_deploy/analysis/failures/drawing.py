"""The pictures of failures: small PNGs that read without colour too."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dropclass_deploy.analysis.regions import Bools, Integers
from dropclass_deploy.data.images import Pixels

MAX_SIDE = 480
MIN_SIDE = 240
"""Pixels on the longer side; smaller images are enlarged by a whole factor."""
MAX_BYTES = 150_000

NOTHING, CORRECT, MISSED, FALSE = range(4)
"""What a pixel of an error map is, of one class: neither there nor predicted, right, missed, or predicted wrongly."""

# Okabe and Ito's bluish green, orange and reddish purple: apart for any colour vision. Missed is striped and false dotted.
_COLOURS = np.array([(0, 0, 0), (0, 158, 115), (230, 159, 0), (204, 121, 167)], dtype=np.float64)
_PLAIN, _MARKED = 0.55, 1.0  # share of the colour over the grey image, off and on the pattern
_GREY_STEP = 8  # greys are made fewer, which halves the file and is not seen under the colours
_TILE = 24
_LABEL = 18  # pixels; the page shows the pictures at about half their size


def error_statuses(truth: Integers, mask: Integers, index: int, ignore_index: int) -> npt.NDArray[np.uint8]:
    """uint8 (H, W) of ``NOTHING``, ``CORRECT``, ``MISSED``, ``FALSE`` for one class; what is ignored is ``NOTHING``."""
    there, predicted = truth == index, (mask == index) & (truth != ignore_index)
    return np.select([there & predicted, there, predicted], [CORRECT, MISSED, FALSE], NOTHING).astype(np.uint8)


def error_map(image: Pixels, statuses: npt.NDArray[np.uint8]) -> bytes:
    """The image in grey, its pixels of a class coloured and patterned by status, as a PNG.

    Args:
        image: uint8 (H, W, 3).
        statuses: uint8 (H, W), see ``error_statuses``.
    """
    size = shown_size(image.shape[:2])
    # Patterns are drawn at the size that is shown: scaling would blur them.
    return paletted_png(_marked(_scaled(image, size, smooth=True), _scaled(statuses, size, smooth=False)))


def legend_tile(status: int) -> bytes:
    """A small PNG that shows colour and pattern of a status."""
    grey = np.full((_TILE, _TILE, 3), 128, dtype=np.uint8)
    return paletted_png(_marked(grey, np.full((_TILE, _TILE), status, dtype=np.uint8)))


def boxed(picture: Pixels, boxes: npt.NDArray[np.int64], *, smooth: bool) -> bytes:
    """A picture with numbered boxes, as a PNG.

    Args:
        picture: uint8 (H, W, 3).
        boxes: int64 (n, 4), top, left, bottom, right in pixels of ``picture``, bottom and right just outside.
        smooth: whether it may be interpolated; False for class colours.
    """
    size = shown_size(picture.shape[:2])
    scale = size[0] / picture.shape[0], size[1] / picture.shape[1]
    canvas = Image.fromarray(_scaled(picture, size, smooth=smooth))
    draw = ImageDraw.Draw(canvas)
    for number, (top, left, bottom, right) in enumerate(boxes, start=1):
        corners = (left * scale[1], top * scale[0], right * scale[1] - 1, bottom * scale[0] - 1)
        _box(draw, tuple(round(corner) for corner in corners), str(number))
    return paletted_png(np.array(canvas))


def shown_size(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) at which a picture of that size is shown."""
    height, width = size
    longer = max(height, width)
    if longer < MIN_SIDE:
        times = -(-MIN_SIDE // longer)
        return height * times, width * times
    scale = min(1.0, MAX_SIDE / longer)
    return max(1, round(height * scale)), max(1, round(width * scale))


def paletted_png(picture: Pixels) -> bytes:
    """PNG of at most 256 colours and ``MAX_BYTES``: with more colours these are chosen, with more bytes it is shrunk."""
    while True:
        stream = io.BytesIO()
        _paletted(picture).save(stream, format="PNG", optimize=True)
        if stream.tell() <= MAX_BYTES or min(picture.shape[:2]) < 32:
            return stream.getvalue()
        height, width = picture.shape[:2]
        picture = _scaled(picture, (height * 4 // 5, width * 4 // 5), smooth=True)


def _paletted(picture: Pixels) -> Image.Image:
    codes = picture.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
    colours, places = np.unique(codes, return_inverse=True)
    if len(colours) > 256:
        return Image.fromarray(picture).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    exact = Image.fromarray(places.reshape(codes.shape).astype(np.uint8))
    exact.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return exact


def _marked(image: Pixels, statuses: npt.NDArray[np.uint8]) -> Pixels:
    grey = (image @ np.array([0.299, 0.587, 0.114])) // _GREY_STEP * _GREY_STEP
    weight = np.where(_pattern(statuses), _MARKED, _PLAIN) * (statuses != NOTHING)
    mixed: Pixels = (
        (grey[..., None] * (1 - weight[..., None]) + _COLOURS[statuses] * weight[..., None]).round().astype(np.uint8)
    )
    return mixed


def _pattern(statuses: npt.NDArray[np.uint8]) -> Bools:
    """Diagonal stripes where missed, dots where false."""
    rows, columns = np.indices(statuses.shape)
    stripes = (rows + columns) // 3 % 2 == 0
    dots = (rows % 5 < 2) & (columns % 5 < 2)
    result: Bools = ((statuses == MISSED) & stripes) | ((statuses == FALSE) & dots)
    return result


def _scaled(array: Pixels, size: tuple[int, int], *, smooth: bool) -> Pixels:
    if array.shape[:2] == size:
        return array
    method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.array(Image.fromarray(np.ascontiguousarray(array)).resize(size[::-1], method))


def _box(draw: ImageDraw.ImageDraw, corners: tuple[int, ...], number: str) -> None:
    """White between black lines, which shows on any ground, and the number in the corner."""
    left, top, right, bottom = corners
    for grow, colour in ((2, "black"), (1, "white"), (0, "white"), (-1, "black")):
        outline = (left - grow, top - grow, max(right + grow, left - grow), max(bottom + grow, top - grow))
        draw.rectangle(outline, outline=colour)
    _label(draw, max(0, left - 2), top, bottom, number)


def _label(draw: ImageDraw.ImageDraw, left: int, top: int, bottom: int, number: str) -> None:
    """Beside the box, whose inside is what matters: above it, or below, or within it where there is no room."""
    below = bottom + 4 if bottom + 4 + _LABEL <= draw.im.size[1] else top + 2
    place = top - _LABEL - 3 if top >= _LABEL + 3 else below
    draw.rectangle((left, place, left + _LABEL * 2 // 3, place + _LABEL), fill="black")
    draw.text((left + _LABEL // 3, place + _LABEL // 2), number, fill="white", anchor="mm", font=_font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=_LABEL - 4)
