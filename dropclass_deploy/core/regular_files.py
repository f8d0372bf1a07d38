"""Reading files that somebody else put there: regular ones only, no larger than they may be, never through a link."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

MIB = 2**20


class RefusedFileError(ValueError):
    """A file that is not read; the message is the reason, without the file's name."""


@contextmanager
def open_regular(path: Path | str, limit: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file for reading; a FIFO or a device is refused without waiting for it.

    Args:
        path: of the file; its last part must be no link.
        limit: bytes that it may have.

    Raises:
        RefusedFileError: for a link, a folder, a FIFO, a device or a file that is too large.
        OSError: when it is missing or cannot be opened.
    """
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for a writer; of regular files it changes nothing.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RefusedFileError("is a link") from error
        raise
    try:
        _check_status(os.fstat(handle), limit)
    except RefusedFileError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as stream:
        yield stream


def _check_status(status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedFileError("is no regular file")
    if limit is not None and status.st_size > limit:
        raise RefusedFileError(f"has {status.st_size / MIB:,.1f} MiB, more than the {limit / MIB:,.0f} MiB allowed")


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes. Raises as ``open_regular``."""
    with open_regular(path, limit) as stream:
        return stream.read(limit + 1)


def read_json(path: Path, limit: int) -> bytes:
    """The bytes of a JSON file that means one thing only, for a schema to read.

    Raises:
        RefusedFileError: as ``open_regular``; for bytes that are no UTF-8 or no JSON; for what readers understand
            differently (a key twice, NaN, infinities) or choke on (numbers of thousands of digits, deep nesting).
        OSError: when it cannot be opened.
    """
    content = read_regular(path, limit)
    check_json(content)
    return content


def check_json(content: bytes) -> None:
    """Raise RefusedFileError where ``read_json`` does for these bytes."""
    try:
        json.loads(content.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except RefusedFileError:
        raise
    except RecursionError as error:
        raise RefusedFileError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise RefusedFileError("is no UTF-8") from error
    except ValueError as error:
        raise RefusedFileError(f"is no JSON ({str(error)[:120]})") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise RefusedFileError(f"has the key {repeated[:80]!r} twice")
    return content


def _no_constant(name: str) -> Any:
    raise RefusedFileError(f"holds {name}, which is no JSON number")
