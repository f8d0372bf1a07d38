"""A reader of the protobuf wire format: fields of one message, without a schema and without a library.

Serving installs no ``onnx``; to know what a graph holds it is enough to walk its messages. Source of the format: the
public protobuf encoding specification (varints, 64-bit, length-delimited, 32-bit; groups are refused).
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WIDTHS = {FIXED64: 8, FIXED32: 4}
LARGEST_KEY = 2**32 - 1
"""A key has 32 bits. A wider one is cut to that by ONNX Runtime: it would see another field than this reader."""
LARGEST_VARINT = 2**64 - 1
LONGEST_VARINT = 10

Value = int | memoryview


class WireError(ValueError):
    """Bytes that are no protobuf message."""


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) in file order: an int for varints, a view of the bytes for everything else.

    Raises:
        WireError: when the bytes end early, hold a wire type or a field number that does not exist, or a number that
            readers would cut to different widths.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if key > LARGEST_KEY or number == 0:
            raise WireError(f"the field number {number} does not exist")
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        length, position = (WIDTHS[kind], position) if kind in WIDTHS else _length(message, position, kind)
        if position + length > len(message):
            raise WireError("a field is longer than its message")
        yield number, message[position : position + length]
        position += length


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """The values of field ``number`` that are length-delimited (messages, strings, packed numbers)."""
    return (value for found, value in fields(message) if found == number and isinstance(value, memoryview))


def integer(message: memoryview, number: int, default: int = 0) -> int:
    """The last varint of field ``number``: in protobuf the last one counts."""
    found = [value for key, value in fields(message) if key == number and isinstance(value, int)]
    return found[-1] if found else default


def text(message: memoryview, number: int) -> str:
    """The last string of field ``number``, or "" without one; bytes that are no UTF-8 are replaced."""
    found = list(messages(message, number))
    return bytes(found[-1]).decode("utf-8", "replace") if found else ""


def _length(message: memoryview, position: int, kind: int) -> tuple[int, int]:
    if kind != BYTES:
        raise WireError(f"wire type {kind} is not known")
    return _varint(message, position)


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """The varint at ``position`` and the position behind it."""
    value = 0
    for index in range(LONGEST_VARINT):
        if position + index >= len(message):
            raise WireError("a number is cut off")
        byte = message[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80 and value <= LARGEST_VARINT:
            return value, position + index + 1
    raise WireError("a number is longer than 64 bits")
