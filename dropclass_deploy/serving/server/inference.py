"""From decoded images to masks, on behalf of one request: its deadline, its record, its client's patience."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from starlette.requests import ClientDisconnect, Request

from dropclass_deploy.serving.batching import Place
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.hosting import Answer, HostedModel
from dropclass_deploy.serving.server.record import record_of
from dropclass_deploy.serving.server.refusals import RefusedRequestError

Image = npt.NDArray[np.uint8]


async def segment(
    request: Request,
    model: HostedModel,
    images: Sequence[Image],
    timeout_s: float | None = None,
    place: Place | None = None,
) -> list[Segmentation]:
    """Masks of the images of a request whose body has been read.

    Args:
        timeout_s: from the request's arrival; None means the setting's.
        place: in the model's queue, when the caller has one.

    Raises:
        ClientDisconnect: when the client leaves: images that still wait are not run.
        RefusedRequestError: see ``HostedModel.segment``. UserError: for an image that the network refuses.
    """
    record = record_of(request.scope)
    record.model, record.images = model, len(images)
    remaining = model.timeout_s(timeout_s) - record.elapsed_s
    if remaining <= 0:
        raise RefusedRequestError(503, "the request's time was over before its image could be queued", 1)
    work = asyncio.ensure_future(model.segment(images, remaining, place))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        answers = work.result()
    finally:
        work.cancel()
        gone.cancel()
    _note(record.stages_ms, answers)
    return [answer.segmentation for answer in answers]


def _note(stages_ms: dict[str, float], answers: Sequence[Answer]) -> None:
    """The stages of the slowest image of each: images of one request run together, or one after another."""
    for answer in answers:
        for stage, value in {"queue": answer.queue_ms, **answer.segmentation.latency_ms}.items():
            stages_ms[stage] = max(stages_ms.get(stage, 0.0), value)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
