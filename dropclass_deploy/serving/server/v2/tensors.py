"""The wire format of an inference request: bytes and header fields → images and what is wanted back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings
from dropclass_deploy.serving.server.v2.encodings import decompressed
from dropclass_deploy.serving.server.v2.json_text import parse_json
from dropclass_deploy.serving.server.v2.schema import (
    DATATYPE,
    IMAGE,
    MASK,
    InputTensor,
    RequestDocument,
    read_document,
    shown,
)

Images = npt.NDArray[np.uint8]
_LENGTH = re.compile("[0-9]{1,18}")


@dataclass(frozen=True)
class InferRequest:
    """What a client wants.

    Attributes:
        id: the client's own, given back; None where it gave none.
        images: uint8 (N, H, W, 3), RGB; read-only, of the request's own bytes where they came in binary.
        binary: whether the mask goes back as bytes.
        timeout_s: that the client is willing to wait; None leaves it to the server.
    """

    id: str | None
    images: Images
    binary: bool
    timeout_s: float | None


def read_request(
    body: bytes, header_length: Sequence[str], content_encoding: Sequence[str], settings: ServerSettings
) -> InferRequest:
    """An inference request out of its bytes.

    Args:
        body: as it arrived.
        header_length: values of ``Inference-Header-Content-Length``, bytes of (uncompressed) JSON; none: all is JSON.
        content_encoding: values of ``Content-Encoding``.
        settings: the limits.

    Raises:
        RefusedRequestError: 413 for what is too large, 415 for a compression that is not known, 400 for all else that
            is wrong; the only error there is, whatever the bytes.
    """
    plain = decompressed(body, content_encoding, settings.max_body_bytes)
    text, binary = _split(memoryview(plain), header_length)
    document = read_document(
        parse_json(
            text,
            max_bytes=settings.max_json_bytes,
            max_depth=settings.max_json_depth,
            # The request, its parameters, and both for each input and output.
            max_objects=2 + 4 * settings.max_tensors,
        ),
        settings,
    )
    image = _only_image(document)
    _check_shape(image.shape, settings)
    return InferRequest(
        id=document.id,
        binary=_binary_wanted(document),
        timeout_s=document.timeout_s,
        images=_values(image, binary).reshape(image.shape),
    )


def _split(plain: memoryview, header_length: Sequence[str]) -> tuple[memoryview, memoryview | None]:
    """JSON and binary part; None where there is no such part."""
    if not header_length:
        return plain, None
    value = header_length[0].strip()
    if len(header_length) > 1 or not _LENGTH.fullmatch(value):
        said = shown(", ".join(header_length))
        raise RefusedRequestError(400, f"Inference-Header-Content-Length is {said!r}; expected one number of bytes")
    length = int(value)
    if length > len(plain):
        raise RefusedRequestError(
            400, f"Inference-Header-Content-Length is {length}, but the uncompressed body has {len(plain)} bytes"
        )
    return plain[:length], plain[length:]


def _only_image(document: RequestDocument) -> InputTensor:
    names = [tensor.name for tensor in document.inputs]
    if names != [IMAGE]:
        said = shown(", ".join(names)) or "none"
        raise RefusedRequestError(400, f"the inputs are: {said}; expected exactly one, {IMAGE!r}")
    image = document.inputs[0]
    if image.datatype != DATATYPE:
        raise RefusedRequestError(
            400, f"the input {IMAGE!r} has datatype {shown(image.datatype)!r}; expected {DATATYPE!r}"
        )
    return image


def _check_shape(shape: tuple[int, ...], settings: ServerSettings) -> None:
    """Each limit before any product: entries may have thousands of digits."""
    count, height, width, channels = shape
    if channels != 3:
        raise RefusedRequestError(400, f"the last dimension of {IMAGE!r} is {shown(channels)}; expected 3, for RGB")
    if count > settings.max_images:
        raise RefusedRequestError(
            413, f"the request has {shown(count)} images; at most {settings.max_images} are taken"
        )
    if max(height, width) > settings.max_pixels or height * width > settings.max_pixels:
        raise RefusedRequestError(
            413, f"an image of {shown(height)}×{shown(width)} has more than {settings.max_pixels} pixels"
        )


def _binary_wanted(document: RequestDocument) -> bool:
    outputs = document.outputs or []
    names = [output.name for output in outputs]
    unknown = [name for name in names if name != MASK]
    if unknown:
        raise RefusedRequestError(400, f"there is no output {shown(unknown[0])!r}; the only one is {MASK!r}")
    if len(names) > 1:
        raise RefusedRequestError(400, f"the output {MASK!r} is asked for {len(names)} times")
    own = outputs[0].binary if outputs else None
    return document.binary_output if own is None else own


def _values(image: InputTensor, binary: memoryview | None) -> Images:
    """The image's bytes, uint8 (N·H·W·3,)."""
    count, height, width, channels = image.shape
    product, there = count * height * width * channels, len(binary or b"")
    if image.binary_size is None:
        if there:
            raise RefusedRequestError(400, f"{there} bytes follow the JSON, but no input has a 'binary_data_size'")
        return np.frombuffer(_bytes_of(image.data, image.shape), np.uint8)
    if image.binary_size != product:
        said = f"'binary_data_size' is {shown(image.binary_size)}"
        raise RefusedRequestError(400, f"{said}, but the shape {list(image.shape)} of {IMAGE!r} needs {product} bytes")
    if binary is None:
        raise RefusedRequestError(400, f"{IMAGE!r} is to be binary, but Inference-Header-Content-Length is missing")
    if there != product:
        raise RefusedRequestError(400, f"the binary part has {there} bytes; {IMAGE!r} needs exactly {product}")
    return np.frombuffer(binary, np.uint8)


def _bytes_of(data: Any, shape: tuple[int, ...]) -> bytes:
    """JSON values as bytes: a flat list in row-major order, or lists in lists of exactly this shape."""
    if not isinstance(data, list):
        raise RefusedRequestError(400, f"the data of {IMAGE!r} must be a list of integers 0…255, flat or nested")
    if data and isinstance(data[0], list):
        data = _flattened(data, shape)
    product = shape[0] * shape[1] * shape[2] * shape[3]
    if len(data) != product:
        raise RefusedRequestError(
            400, f"the data of {IMAGE!r} are {len(data)} values; its shape {list(shape)} needs {product}"
        )
    # By type: True and 3.0 equal integers, and pass for them in NumPy.
    if set(map(type, data)) != {int}:
        raise RefusedRequestError(400, f"the data of {IMAGE!r} must be integers 0…255 alone, no other kind of value")
    try:
        return bytes(data)
    except (ValueError, OverflowError) as error:
        raise RefusedRequestError(400, f"the data of {IMAGE!r} hold an integer outside 0…255") from error


def _flattened(data: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The values of lists in lists, level by level at C speed, so that ragged ones are told from whole ones."""
    level, ragged = data, len(data) != shape[0]
    for size in shape[1:]:
        if ragged or set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise RefusedRequestError(
                400, f"the nested data of {IMAGE!r} do not have its shape {list(shape)} throughout"
            )
        level = list(chain.from_iterable(level))
    return level
