"""Decoded images and raw masks as NumPy arrays, and the few pictures that are made from masks.

Whatever the bytes hold, the only error that leaves this module is DataError, and it names the file.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.files import write_bytes
from dropclass_deploy.core.preprocess import ValueRange, window

Pixels = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.integer[Any]]

# Decoders that are needed, no others: some of Pillow's run outside programs on what they are given.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
_SINGLE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
# How Pillow names pixels that are stored with 16 or 32 bits a channel; it cuts them to 8 without a word.
_DEEP = re.compile(r";(16|32)[BLNSF]")
# The grey modes of Pillow, palettes not among them: their indices are no intensities.
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
# Unsigned 32-bit TIFF, which Pillow hands over as signed.
_UNSIGNED_32 = "I;32N"
# What is said of a PGM or PPM file whose values Pillow stretches to 8 or 16 bits.
_SCALED = " scaled"
# Pillow stretches 2- and 4-bit grey values to 0 … 255; ids have to be taken back to what was stored.
_STRETCH = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class ImageLimits:
    """What of an image is refused from its header, before a pixel is decoded.

    Attributes:
        formats: those allowed, out of ``FORMATS``.
        pixels: the most of them, height · width; None leaves it to Pillow.
    """

    formats: tuple[str, ...] = FORMATS
    pixels: int | None = None


_ANY = ImageLimits()


def read_image(source: Path | bytes, value_range: ValueRange | None = None, limits: ImageLimits = _ANY) -> Pixels:
    """Decode an image to RGB as it is stored.

    Greyscale becomes three equal channels and alpha is dropped. The EXIF orientation is not applied: labels are drawn
    on the stored pixels, so a turned image would no longer lie under its mask.

    With a value range, an image of one channel (8, 16 or 32 bits, integer or float) holds raw values and is windowed. An
    8-bit colour image is taken as it is: it cannot hold raw values, but is what the range makes of them (an artifact's
    ``sample/image.png``, the view that a workstation exports), and windowing it twice would darken it silently.

    Args:
        source: a file, or the bytes of one (PNG, JPEG, BMP, TIFF, WebP, PPM or GIF).
        value_range: raw values that become 0 and 255 (``core.preprocess.window``); without one, 8 bits a channel only.
        limits: what is refused before it is decoded.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: naming the file, when it is missing, no image, truncated, too large, deeper than 8 bits without a value
            range or in several channels, or when a raw value is NaN.
    """
    name = _name(source)
    image, stored = _decode(source, limits)
    deep = image.mode[0] in "IF" or _DEEP.search(stored) is not None
    if value_range is not None and image.mode in _GREY:
        return window(_raw_values(image, stored, name), value_range, name)
    if deep:
        raise _too_deep(name, image.mode)
    try:
        # Pillow warns when a palette with transparency goes to RGB directly.
        flat = image.convert("RGBA") if "transparency" in image.info else image
        return np.array(flat.convert("RGB"))
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(name, error) from error


def read_mask(path: Path) -> Integers:
    """Decode a single-channel mask to the raw values that are stored; palettes give their indices, never their colours.

    Returns:
        integer (H, W): uint8, or a wider type for 16-bit files.

    Raises:
        DataError: naming the file, when it is unreadable or has more than one channel.
    """
    image, stored = _decode(path)
    if image.mode not in _SINGLE_CHANNEL:
        raise DataError(
            f"the mask {path} is a {image.mode} picture with {len(image.getbands())} channels",
            expected="a single-channel image whose values are ids: masks must be single-channel ids, not colours",
            remedy="save it as an 8-bit greyscale or palette PNG",
        )
    values = np.array(image)
    raw = values.astype(np.uint8) if values.dtype == np.bool_ else values
    return raw // _STRETCH.get(stored, 1)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file from its header, without decoding the pixels."""
    with _open(path) as image:
        return image.height, image.width


def encode_png(array: Pixels) -> bytes:
    """PNG bytes of a uint8 (H, W) or (H, W, 3) array; lossless."""
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise DataError(f"an array {array.dtype} {array.shape} is no picture", expected="uint8 (H, W) or (H, W, 3)")
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stream, format="PNG")
    return stream.getvalue()


def write_png(path: Path, array: Pixels) -> None:
    """Write a uint8 (H, W) or (H, W, 3) array as PNG, whole or not at all."""
    write_bytes(path, encode_png(array))


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize to ``size`` = (height, width): Pillow bilinear with antialiasing; the same array when it has that size."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR))


def colour_mask(mask: Integers, classes: ClassTable) -> Pixels:
    """A mask in the colours of its classes; ids outside the table, "ignore" among them, are black.

    Args:
        mask: class ids (H, W).

    Returns:
        uint8 (H, W, 3), RGB.
    """
    # The last row is black, and every id outside the table is sent there.
    colours = np.array([*classes.palette, (0, 0, 0)], dtype=np.uint8)
    return colours[np.where(_in_table(mask, classes), mask, len(classes))]


def overlay(image: Pixels, mask: Integers, classes: ClassTable, opacity: float = 0.5) -> Pixels:
    """The image with class colours laid over it; pixels without a class keep the image.

    Args:
        image: uint8 (H, W, 3), RGB.
        mask: class ids (H, W).
        opacity: of the colours, from 0 (image only) to 1 (colours only).

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        DataError: when the sizes differ or ``opacity`` lies outside [0, 1].
    """
    if image.shape[:2] != mask.shape:
        raise DataError(f"the image has shape {image.shape[:2]} and the mask {mask.shape}", expected="equal sizes")
    if not 0.0 <= opacity <= 1.0:
        raise DataError(f"opacity {opacity}", expected="a number from 0 to 1")
    share = (_in_table(mask, classes) * np.float32(opacity))[..., None]
    blended = image * (1 - share) + colour_mask(mask, classes) * share
    return np.rint(blended).astype(np.uint8)


def array_digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 hex over dtype, shape and bytes: the key of a decoded image or label, whatever file it came from."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _raw_values(image: Image.Image, stored: str, name: str) -> npt.NDArray[Any]:
    """What the file of a grey image stores, (H, W), without its alpha."""
    if stored.endswith(_SCALED):
        raise DataError(
            f"{name} is a PGM file whose largest value is unusual: its decoder scales the raw values",
            expected="a largest value of 255 or 65535",
            remedy="save it as PNG or TIFF",
        )
    values = np.array(image.getchannel(0) if len(image.getbands()) > 1 else image)
    if stored == _UNSIGNED_32:
        return values.view(np.uint32)
    return values // _STRETCH.get(stored, 1) if values.dtype == np.uint8 else values


def _too_deep(name: str, mode: str) -> DataError:
    if mode in _GREY:
        return DataError(
            f"{name} has more than 8 bits a channel",
            expected="an 8-bit image, or a value range for images of one channel",
            remedy="name the raw values of black and white in the data's classes.yaml, such as value_range: [0, 4095]",
        )
    return DataError(
        f"{name} has more than 8 bits in each of several channels ({mode})",
        expected="an 8-bit image; a value range is for images of one channel",
        remedy="save it with one channel, or convert it to 8 bits",
    )


def _in_table(mask: Integers, classes: ClassTable) -> npt.NDArray[np.bool_]:
    return (mask >= 0) & (mask < len(classes))


def _decode(source: Path | bytes, limits: ImageLimits = _ANY) -> tuple[Image.Image, str]:
    """The image, decoded wholly so that a truncated file is found here, and how its file stores the pixels ("L;4")."""
    with _open(source, limits) as image:
        try:
            # Decoding empties the list of tiles.
            stored = _stored_mode(image)
            image.load()
        except Exception as error:  # the decoders raise whatever hostile bytes lead them to
            raise _unreadable(_name(source), error, limits) from error
        return image, stored


def _stored_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    codec, _, _, arguments = tiles[0]
    if codec.startswith("ppm") and isinstance(arguments, tuple):
        mode, largest = arguments
        return f"{mode};{16 if largest > 255 else 8}B{'' if largest in (255, 65535) else _SCALED}"
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _open(source: Path | bytes, limits: ImageLimits = _ANY) -> Image.Image:
    if isinstance(source, Path) and not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {what}", expected="an image file", remedy="check the path")
    name = _name(source)
    try:
        image = Image.open(source if isinstance(source, Path) else BytesIO(source), formats=limits.formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, limits) from error
    except Exception as error:  # as in _decode
        raise _unreadable(name, error, limits) from error
    # Between its limit and twice its limit Pillow only warns.
    if image.width * image.height > _most_pixels(limits):
        image.close()
        raise _too_large(name, limits)
    return image


def _most_pixels(limits: ImageLimits) -> float:
    return min(Image.MAX_IMAGE_PIXELS or float("inf"), limits.pixels or float("inf"))


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else f"the image of {len(source)} bytes"


def _unreadable(name: str, error: Exception, limits: ImageLimits = _ANY) -> DataError:
    *others, last = limits.formats
    named = f"{', '.join(others)} or {last}" if others else last
    return DataError(
        f"{name} cannot be read as an image ({_reason(error)})",
        expected=f"a whole {named} file",
        remedy="replace or remove the file",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image format was recognised"
    lines = str(error).splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _too_large(name: str, limits: ImageLimits) -> DataError:
    return DataError(
        f"{name} has too many pixels to be decoded safely",
        expected=f"at most {_most_pixels(limits)} pixels",
        remedy="cut it into tiles first",
    )
