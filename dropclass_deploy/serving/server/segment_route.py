"""``POST /v1/segment``: an image file in, a mask, an overlay or figures out."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Header, Query, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.data.images import ImageLimits, encode_png, overlay
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.hosting import NAME, HostedModel, Image
from dropclass_deploy.serving.server.inference import segment
from dropclass_deploy.serving.server.record import Record, record_of
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.state import ServerState, state_of

FIELD = "image"
_MODEL = f"^{NAME.pattern}$"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": _BINARY,
        "image/png": _BINARY,
        "image/jpeg": _BINARY,
        "image/webp": _BINARY,
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {FIELD: _BINARY["schema"]}, "required": [FIELD]}
        },
    },
}
Format = Literal["mask", "overlay", "json"]


def router() -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["segment"])

    @routes.post(
        "/v1/segment",
        summary="Segment one image",
        openapi_extra={"requestBody": _BODY},
        response_class=Response,
        responses={
            200: {
                "content": {"image/png": _BINARY, "application/json": {"schema": {"type": "object"}}},
                "description": "mask: an 8-bit PNG of class ids at the image's own size; overlay: an RGB PNG; json: figures",
            }
        },
    )
    async def segment_image(
        request: Request,
        format: Annotated[Format, Query(description="What to answer with.")] = "mask",  # noqa: A002 (the URL's word)
        model: Annotated[str | None, Query(description="Needed when several are served.", pattern=_MODEL)] = None,
        request_timeout_ms: Annotated[float | None, Header(gt=0, le=86_400_000, allow_inf_nan=False)] = None,
    ) -> Response:
        """The body is the image file itself, or multipart/form-data with the field `image`."""
        state, record = state_of(request), record_of(request.scope)
        record.model = hosted = state.model(model)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusedRequestError(415, "the body is compressed; expected the image file as it is")
        body = await state.body(request)
        with hosted.enter() as place:
            data = await _image_bytes(request, body)
            with record.stage("decode"):
                image = await state.in_pool(_decode, hosted, data, state)
            timeout_s = None if request_timeout_ms is None else request_timeout_ms / 1000
            [result] = await segment(request, hosted, [image], timeout_s, place)
        return await _answer(state, record, hosted, format, image, result)

    return routes


async def _image_bytes(request: Request, body: bytes) -> bytes:
    """The image file: the body, or its part.

    Raises:
        RefusedRequestError: 400 for a form that cannot be read or has no such part.
    """
    kind = request.headers.get("content-type", "")
    if not re.match(r"multipart/form-data\b", kind, re.IGNORECASE):
        if not body:
            raise RefusedRequestError(400, "the body is empty; expected the bytes of an image file")
        return body

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    expected = f"expected multipart/form-data with one file in the field {FIELD!r}"
    try:
        form = await MultiPartParser(request.headers, whole(), max_files=1, max_fields=8, max_part_size=65_536).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RefusedRequestError(400, f"the form cannot be read; {expected}") from error
    try:
        part = form.get(FIELD)
        if not isinstance(part, UploadFile):
            raise RefusedRequestError(400, f"the form has no such file; {expected}")
        return await part.read()
    finally:
        await form.close()


def _decode(hosted: HostedModel, data: bytes, state: ServerState) -> Image:
    limits = ImageLimits(state.settings.formats, state.settings.max_pixels)
    return hosted.segmenter.read_image(data, limits)


async def _answer(
    state: ServerState, record: Record, hosted: HostedModel, wanted: Format, image: Image, result: Segmentation
) -> Response:
    classes = hosted.classes
    with record.stage("encode"):
        if wanted == "json":
            content, media = await state.in_pool(_figures, hosted.name, classes, result, record), "application/json"
        else:
            content, media = await state.in_pool(_picture, wanted, classes, image, result), "image/png"
    stages = ", ".join(f"{name};dur={value:.2f}" for name, value in record.stages_ms.items())
    return Response(content, media_type=media, headers={"Server-Timing": stages, "X-Model": hosted.name})


def _picture(wanted: Format, classes: ClassTable, image: Image, result: Segmentation) -> bytes:
    return encode_png(result.mask if wanted == "mask" else overlay(image, result.mask, classes))


def _figures(name: str, classes: ClassTable, result: Segmentation, record: Record) -> bytes:
    """The classes that are there, by id."""
    counts = np.bincount(result.mask.ravel(), minlength=len(classes))
    rare = set(classes.rare)
    rows: list[dict[str, Any]] = [
        {
            "id": index,
            "name": class_name,
            "rare": index in rare,
            "pixels": int(counts[index]),
            "share": round(float(counts[index]) / result.mask.size, 6),
        }
        for index, class_name in enumerate(classes.names)
    ]
    height, width = result.mask.shape
    content = {"model": name, "height": height, "width": width, "classes": rows, "latency_ms": record.stages_ms}
    return json.dumps(content, ensure_ascii=False).encode()
