"""Compressed bodies: gzip, and deflate in the sense of HTTP (a zlib stream, RFC 9110 section 8.4.1.2)."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence

from dropclass_deploy.core.errors import printable
from dropclass_deploy.serving.server.refusals import RefusedRequestError

# zlib's window argument for each coding: 15 bits, plus 16 for a gzip header and trailer.
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_WEIGHT = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)
# Masks shrink tenfold at the lowest level; higher ones cost the time that compression is to save.
_LEVEL = 1


def decompressed(body: bytes, content_encoding: Sequence[str], limit: int) -> bytes:
    """A request's body as it was before compression.

    Args:
        body: as it arrived.
        content_encoding: the values of the header field, none or several.
        limit: bytes of the result; what would be longer is never built.

    Raises:
        RefusedRequestError: 415 for a coding that is not known, or several; 400 for a stream that is wrong, truncated or
            followed by other bytes; 413 when the result would be longer than ``limit``.
    """
    codings = [coding.strip().lower() for value in content_encoding for coding in value.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return body
    if len(codings) > 1 or codings[0] not in _WINDOW:
        shown = printable(", ".join(codings)[:60])
        raise RefusedRequestError(415, f"the Content-Encoding {shown!r} is not known: expected gzip or deflate, once")
    return _inflated(body, codings[0], limit)


def _inflated(body: bytes, coding: str, limit: int) -> bytes:
    stream = zlib.decompressobj(_WINDOW[coding])
    try:
        # One byte more than allowed tells "too long" from "just fits"; 0 would mean no limit.
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedRequestError(
            400, f"the body is no {coding} stream although its Content-Encoding says so"
        ) from error
    if len(plain) > limit:
        raise RefusedRequestError(413, f"the decompressed body has more than {limit} bytes, the most that is taken")
    if not stream.eof:
        raise RefusedRequestError(400, f"the body's {coding} stream is truncated")
    if stream.unused_data:
        raise RefusedRequestError(400, f"bytes follow the end of the body's {coding} stream")
    return plain


def accepted_coding(accept_encoding: str) -> str | None:
    """Which of "gzip" and "deflate" a client's Accept-Encoding wants most (gzip where it likes both); None for neither."""
    weights = {"gzip": 0.0, "deflate": 0.0}
    for item in accept_encoding.lower().split(","):
        coding, _, rest = (part.strip() for part in item.partition(";"))
        weight = _WEIGHT.fullmatch(rest)
        if coding in weights and (weight or not rest):
            weights[coding] = float(weight[1]) if weight else 1.0
    best = max(weights, key=weights.__getitem__)
    return best if weights[best] > 0 else None


def compressed(content: bytes, coding: str) -> bytes:
    """Content in one of the codings that ``accepted_coding`` gives."""
    return gzip.compress(content, _LEVEL, mtime=0) if coding == "gzip" else zlib.compress(content, _LEVEL)
