"""JSON from strangers: what it would cost is known before it is parsed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

import numpy as np

from dropclass_deploy.core.errors import printable
from dropclass_deploy.serving.server.refusals import RefusedRequestError

# Keys and values of a request with dozens of tensors; a million strings of one letter take fifty times their bytes.
MAX_STRINGS = 4096
_FEW_LISTS, _BYTES_A_LIST = 64, 6
"""A list a pixel, "[0,0,0]," and one a row: every list beyond that is one more thing for Python to make and to collect."""
_QUOTE, _OPEN_OBJECT, _OPEN_LIST = ord('"'), ord("{"), ord("[")
_MARKS = b'"[]{}'
_NO_MARKS = bytes(sorted(set(range(256)) - set(_MARKS)))
# By byte: +1 where a list or object begins, -1 where one ends.
_STEP = np.zeros(256, np.int8)
_STEP[[ord("["), ord("{")]], _STEP[[ord("]"), ord("}")]] = 1, -1
# Marks looked at together: a few MB of working memory, whatever the text.
_CHUNK = 65_536


def parse_json(text: bytes | memoryview, *, max_bytes: int, max_depth: int, max_objects: int) -> Any:
    """What UTF-8 JSON says.

    Args:
        text: the whole of it.
        max_bytes: of the text.
        max_depth: of lists and objects inside each other.
        max_objects: of all objects; each costs tens of times its two bytes.

    Raises:
        RefusedRequestError: 413 beyond ``max_bytes``; 400 beyond the others or ``MAX_STRINGS``, for what is no JSON
            (NaN and Infinity are none), no UTF-8, or gives a key twice.
    """
    if len(text) > max_bytes:
        raise RefusedRequestError(
            413, f"the JSON has {len(text)} bytes; at most {max_bytes} are taken: send binary tensors"
        )
    held = bytes(text)
    _check_structure(held, max_depth, max_objects)
    try:
        return json.loads(str(held, "utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise RefusedRequestError(400, f"the JSON is no UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise RefusedRequestError(400, f"the request is no JSON: {error}") from error
    except ValueError as error:
        # An integer of thousands of digits, which Python does not turn into a number.
        raise RefusedRequestError(400, "the JSON holds a number that is too long") from error
    except RecursionError as error:
        raise RefusedRequestError(400, "the JSON is nested too deeply") from error


def _check_structure(text: bytes, max_depth: int, max_objects: int) -> None:
    """Refuse by counting marks outside strings; right up to the first error of syntax, where parsing ends anyway."""
    if b"\\" in text:
        # Pairs first: in \\" the quote ends the string, in \" it does not.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(text.translate(None, _NO_MARKS), np.uint8)
    quotes = depth = objects = lists = 0
    for start in range(0, len(marks), _CHUNK):
        chunk = marks[start : start + _CHUNK]
        quotes_before = quotes + np.cumsum(chunk == _QUOTE)
        outside = chunk[quotes_before % 2 == 0]
        depths = depth + np.cumsum(_STEP[outside], dtype=np.int64)
        quotes = int(quotes_before[-1])
        objects += int(np.count_nonzero(outside == _OPEN_OBJECT))
        lists += int(np.count_nonzero(outside == _OPEN_LIST))
        if len(depths):
            depth = int(depths[-1])
            if depths.max() > max_depth:
                raise RefusedRequestError(400, f"the JSON is nested deeper than {max_depth} levels")
        if objects > max_objects:
            raise RefusedRequestError(400, f"the JSON holds more than {max_objects} objects, as many as it may need")
        if lists > _FEW_LISTS + len(text) // _BYTES_A_LIST:
            raise RefusedRequestError(400, "the JSON holds more lists than pixels of three values need")
        if quotes > 2 * MAX_STRINGS:
            raise RefusedRequestError(400, f"the JSON holds more than {MAX_STRINGS} strings; pixels are numbers")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise RefusedRequestError(400, f"the JSON gives the key '{printable(twice[:60])}' twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise RefusedRequestError(400, f"the JSON holds {name}, which JSON does not have")
