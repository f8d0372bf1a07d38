"""What the header of an image file says: size, pixel format, depth, palette."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageFile

from dropclass_deploy.core.classes import Colour
from dropclass_deploy.data.images import image_size

_DEPTH = re.compile(r";(1|2|4|8|16|32)(?![0-9])")
_DEEP_MODES = {"I": 32, "F": 32, "1": 1}


@dataclass(frozen=True)
class Header:
    """Size in pixels, Pillow's mode, channels, bits a channel, the palette's colours (empty without one), EXIF turn (1–8)."""

    height: int
    width: int
    mode: str
    channels: int
    bits: int
    palette: tuple[Colour, ...]
    orientation: int


def read_header(path: Path) -> Header:
    """Read a header; no pixel is decoded.

    Raises:
        DataError: when the file is missing, no image, or too large to be decoded safely.
    """
    # Refuses what must not be opened: the bytes begin as one of the formats that are taken, which Pillow then finds again.
    height, width = image_size(path)
    with Image.open(path) as image:
        bands = len(image.getbands())
        return Header(height, width, image.mode, bands, _bits(image), _palette(image), _orientation(image))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # hostile tags lead the parser anywhere; the pixels are what counts
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def decodes(path: Path) -> bool:
    """Whether every pixel of a file whose header was read can be decoded."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # the decoders raise whatever hostile bytes lead them to
        return False
    return True


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits a channel as the file stores them; Pillow names them in the tile ("RGB;16B") or the mode ("I;16")."""
    stored = [str(item) for tile in image.tile for item in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    depths = [int(found[1]) for text in (*stored[:1], image.mode) if (found := _DEPTH.search(text))]
    return max(depths, default=_DEEP_MODES.get(image.mode, 8))


def _palette(image: Image.Image) -> tuple[Colour, ...]:
    flat = image.getpalette("RGB") if image.mode == "P" else None
    return tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)) if flat else ()
