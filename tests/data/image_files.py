"""Image files in memory, for depths and byte orders that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""Sample formats of TIFF (tag 339)."""
_SHORT, _LONG = 3, 4


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def png_of(depth: int, colour_type: int, width: int, rows: list[bytes]) -> bytes:
    """A PNG written by hand, for depths that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff_of(values: np.ndarray, sample_format: int, order: str = "<") -> bytes:
    """An uncompressed TIFF written by hand: values (H, W) or (H, W, 3), ``order`` "<" or ">".

    Source: TIFF 6.0 specification, sections 2 and 8.
    """
    height, width = values.shape[:2]
    channels, bits = (3 if values.ndim == 3 else 1), values.dtype.itemsize * 8
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    three_depths = struct.pack(order + "3H", bits, bits, bits)
    after = 8 + 2 + 12 * 10 + 4  # header, count, ten entries, no next directory
    entries = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, channels, bits if channels == 1 else after),
        (259, _SHORT, 1, 1),  # no compression
        (262, _SHORT, 1, 1 if channels == 1 else 2),  # black is zero, or RGB
        (273, _LONG, 1, after + len(three_depths)),
        (277, _SHORT, 1, channels),
        (278, _LONG, 1, height),
        (279, _LONG, 1, len(body)),
        (339, _SHORT, 1, sample_format),
    ]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    directory = b"".join(_entry(order, *entry) for entry in entries)
    return head + directory + bytes(4) + three_depths + body


def _entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
    stored = struct.pack(order + "HH", value, 0) if (kind, count) == (_SHORT, 1) else struct.pack(order + "I", value)
    return struct.pack(order + "HHI", tag, kind, count) + stored
