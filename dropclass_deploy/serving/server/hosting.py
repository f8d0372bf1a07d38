"""One artifact being served: its segmenter behind a bounded queue, and whether it is fit to answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.serving.batching import (
    Admission,
    Batcher,
    Cancelled,
    DeadlinePassedError,
    Place,
    QueueFullError,
)
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.health import Health, ModelFailedError, Opener, SegmentsBatches
from dropclass_deploy.serving.server.refusals import RefusedRequestError
from dropclass_deploy.serving.server.settings import ServerSettings

Image = npt.NDArray[np.uint8]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Of a model: it stands in URLs."""


@dataclass(frozen=True)
class Answer:
    """A result, and what its way through the server took.

    Attributes:
        segmentation: the mask.
        queue_ms: between its arrival in the queue and the start of its run.
    """

    segmentation: Segmentation
    queue_ms: float


class HostedModel:
    """A model by name.

    Attributes:
        name: the artifact's folder name.
        version: of the model, as the protocol wants one.
        on_run: told of every run of the network, and how many images were in it.

    Args:
        name: in URLs.
        opener: makes the segmenter; called again when one has failed.
        settings: the server's.
        canary: an image that the network must be able to run on, or is not well; None: a grey one.
    """

    version = "1"

    def __init__(
        self,
        name: str,
        opener: Opener,
        settings: ServerSettings,
        canary: Image | None = None,
    ) -> None:
        self.name, self._settings = name, settings
        self.on_run: Callable[[int], None] = lambda _: None
        self._health = Health(name, opener, canary)
        self._admission = Admission(settings.waiting)
        self._batcher: Batcher[Image, Segmentation] = Batcher(
            self._run,
            lambda image: self.segmenter.batch_key(image),
            largest=settings.max_batch,
            most=lambda image: settings.max_batch_pixels // (image.shape[0] * image.shape[1]) or 1,
            wait_s=settings.batch_wait_ms / 1000,
        )

    def open(self) -> None:
        """Load the network and run it once; blocks. Raises what the opener does."""
        self._health.open()

    def close(self, timeout_s: float | None = None) -> bool:
        """Finish what runs, cancel what waits, let the network go; False when it is still running after that time."""
        ended = self._batcher.close(timeout_s)
        if ended:
            self._health.close(timeout_s)
        return ended

    @property
    def ready(self) -> bool:
        """Whether the network answers."""
        return self._health.ready

    @property
    def segmenter(self) -> SegmentsBatches:
        """What runs it now; another one after a failure.

        Raises:
            RefusedRequestError: when there is none.
        """
        segmenter = self._health.segmenter
        if segmenter is None:
            raise self._unready()
        return segmenter

    @property
    def classes(self) -> ClassTable:
        """Names and colours, whatever becomes of the network meanwhile.

        Raises:
            RefusedRequestError: before it was opened.
        """
        if self._health.classes is None:
            raise self._unready()
        return self._health.classes

    @property
    def waiting(self) -> int:
        """Images that have a place and do not run yet."""
        return self._admission.waiting

    @property
    def full(self) -> bool:
        """Whether another image would be refused."""
        return self._admission.waiting >= max(1, self._admission.limit)

    def refusal(self) -> RefusedRequestError:
        """Of an image that finds the queue full."""
        return RefusedRequestError(429, f"the queue of {self.name} is full; try again later", 1)

    def timeout_s(self, asked: float | None) -> float:
        """Seconds for a request that asks for so many, or for none in particular."""
        limit = self._settings.timeout_s
        return limit if asked is None else min(asked, limit)

    def enter(self) -> Place:
        """A place in the queue, before any work is done for the image or the first of several.

        Raises:
            RefusedRequestError: 503 when the model is not ready, 429 when the queue is full.
        """
        if not self.ready:
            raise self._unready()
        with self._refusing():
            return self._admission.enter()

    async def segment(
        self, images: Sequence[Image], timeout_s: float | None = None, place: Place | None = None
    ) -> list[Answer]:
        """The masks of decoded images, uint8 (H, W, 3) each, in their order; all of them or an error.

        Args:
            timeout_s: from now, at most the setting's, which None means.
            place: of ``enter``, for one image at least, when the caller has one; it is left here.

        Raises:
            RefusedRequestError: 429 when the queue is full, 503 when the deadline passed or the model failed.
            UserError: for an image that the network refuses.
        """
        timeout = self.timeout_s(timeout_s)
        place = place or self.enter()
        try:
            with self._refusing():
                place.grow(len(images) - 1)
            return await self._queued(images, time.monotonic() + timeout, place)
        except (TimeoutError, DeadlinePassedError) as error:
            raise RefusedRequestError(503, f"{self.name} had no answer within {timeout:g} s", 1) from error
        except ModelFailedError as error:
            raise self._unready() from error
        finally:
            place.leave()

    async def _queued(self, images: Sequence[Image], deadline: float, place: Place) -> list[Answer]:
        arrived, began = time.monotonic(), [0.0] * len(images)

        def started(index: int) -> Callable[[], None]:
            def note() -> None:
                began[index] = time.monotonic()
                place.leave(1)

            return note

        try:
            futures = [self._batcher.submit(image, deadline, started(index)) for index, image in enumerate(images)]
        except Cancelled as error:
            raise self._unready() from error
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                results = await asyncio.gather(*map(asyncio.wrap_future, futures))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._unready() from None  # the queue was closed, and its items with it
        finally:
            for future in futures:
                future.cancel()
        return [Answer(result, 1e3 * (start - arrived)) for result, start in zip(results, began, strict=True)]

    def _run(self, images: list[Image]) -> list[Segmentation]:
        """In the batcher's thread."""
        try:
            results = self._health.segment(images)
        except ModelFailedError as error:
            self._batcher.fail_waiting(error)
            raise
        self.on_run(len(images))
        return results

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except QueueFullError as error:
            raise self.refusal() from error

    def _unready(self) -> RefusedRequestError:
        return RefusedRequestError(503, f"the model {self.name} is not ready", 1)
