"""Image files to send: tiny ones, mixed ones, broken ones, and a bomb."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = (32, 48, 64, 97, 128, 160, 200, 256)


def encoded(height: int, width: int, kind: str = "PNG", seed: int = 0) -> bytes:
    """An image file of smooth colours with a little noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = np.clip(smooth + rng.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def tiny() -> bytes:
    """A PNG of 8×8 pixels: what it costs is the request, not the image."""
    return encoded(8, 8)


def mixed() -> list[bytes]:
    """Every pair of ``SIDES`` as PNG and as JPEG."""
    return [
        encoded(height, width, kind, seed=height * width)
        for height in SIDES
        for width in SIDES
        for kind in ("PNG", "JPEG")
    ]


def malformed() -> list[bytes]:
    """Bodies that are no whole image: nothing, noise, text, cut files, broken chunks, impossible sizes."""
    png, jpeg = encoded(64, 64), encoded(64, 64, "JPEG")
    rng = np.random.default_rng(0)
    broken = bytearray(png)
    broken[len(png) // 2] ^= 0xFF
    return [
        b"",
        rng.bytes(1000),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        SIGNATURE,
        *(png[: len(png) * share // 8] for share in range(1, 8)),
        *(jpeg[: len(jpeg) * share // 8] for share in range(1, 8)),
        bytes(broken),
        _png(0, 0, b""),
        _png(2**31 - 1, 2**31 - 1, b""),
    ]


def bomb(side: int = 30_000) -> bytes:
    """A valid PNG of ``side`` × ``side`` pixels, one bit each and all black: some 100 KB that decode to gigabytes."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    return _png(side, side, b"".join(_compressed(compressor, row, side)))


def _compressed(compressor: zlib._Compress, row: bytes, rows: int) -> Iterator[bytes]:
    for _ in range(rows):
        yield compressor.compress(row)
    yield compressor.flush()


def _png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # one bit, grey
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
