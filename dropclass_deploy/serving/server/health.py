"""Whether a network answers, and how it is opened again when it does not.

A failure is the image's fault or the network's. The canary tells: an image that the network has run on before. When it
cannot run on that one either, the model is not ready until another segmenter, opened in its place, can.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import (
    ArtifactError,
    DropclassError,
    MissingExtraError,
    ModelError,
    OutOfMemoryError,
    UserError,
    first_line,
)
from dropclass_deploy.data.images import ImageLimits
from dropclass_deploy.serving.segmentation import Segmentation

Image = npt.NDArray[np.uint8]

log = logging.getLogger("dropclass_deploy.server")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_TRUSTED_S = 1.0
"""After the canary was well: bad images in a row must not each cost a second run."""
_OURS = (ArtifactError, ModelError, MissingExtraError)
"""Of the caller's mistakes, those that are not the image's: files that have changed or gone, a library that has."""
_GREY = np.full((64, 64, 3), 128, np.uint8)


class SegmentsBatches(Protocol):
    """What a hosted model needs of a ``Segmenter``."""

    @property
    def classes(self) -> ClassTable: ...
    def read_image(self, source: Path | bytes, limits: ImageLimits | None = None) -> Image: ...
    def batch_key(self, image: Image) -> Hashable: ...
    def segment_batch(self, images: Sequence[Image]) -> list[Segmentation]: ...
    def close(self) -> None: ...


Opener = Callable[[], SegmentsBatches]


class ModelFailedError(DropclassError):
    """The network failed on what it has run on before."""


class Health:
    """A segmenter, replaced when it fails.

    Args:
        name: of the model, for the log.
        opener: makes a segmenter.
        canary: uint8 (H, W, 3); None: grey.
    """

    def __init__(self, name: str, opener: Opener, canary: Image | None) -> None:
        self._name, self._opener = name, opener
        self._canary = _GREY if canary is None else canary
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._recovery: threading.Thread | None = None
        self._well_at = -_TRUSTED_S
        self.segmenter: SegmentsBatches | None = None
        self.classes: ClassTable | None = None
        self.ready = False

    def open(self) -> None:
        """Open the network and run it once. Raises what either does."""
        segmenter = self._opener()
        try:
            segmenter.segment_batch([self._canary])
            self._try_another_size(segmenter)
        except BaseException:
            segmenter.close()
            raise
        with self._lock:
            self.segmenter, self.classes, self.ready = segmenter, segmenter.classes, True

    def close(self, timeout_s: float | None = None) -> None:
        """Let the network go; one that is just being opened gets so long for it."""
        self._closed.set()
        with self._lock:
            recovery = self._recovery
        if recovery is not None:
            recovery.join(timeout_s)
        self._let_go()

    def _try_another_size(self, segmenter: SegmentsBatches) -> None:
        """An image that has to be resized goes through another network; one that keeps its size may be refused."""
        try:
            segmenter.segment_batch([np.ascontiguousarray(self._canary[:-1, :-1])])
        except UserError as error:
            if isinstance(error, _OURS):
                raise

    def segment(self, images: Sequence[Image]) -> list[Segmentation]:
        """Run the network.

        Raises:
            ModelFailedError: when it is not the images' fault; another segmenter is then being opened.
            Exception: as the segmenter's, when it is.
        """
        segmenter = self.segmenter
        if segmenter is None or not self.ready:
            raise ModelFailedError(f"{self._name} is not ready")
        try:
            return segmenter.segment_batch(images)
        except (OutOfMemoryError, MemoryError) as error:
            # Its arena may keep what it took: a fresh session gives it back.
            self._recover(error)
            raise ModelFailedError(f"{self._name} ran out of memory") from error
        except Exception as error:
            if not isinstance(error, _OURS) and self._answers(segmenter):
                raise
            self._recover(error)
            raise ModelFailedError(f"{self._name} failed") from error

    def _answers(self, segmenter: SegmentsBatches) -> bool:
        if time.monotonic() - self._well_at < _TRUSTED_S:
            return True
        try:
            segmenter.segment_batch([self._canary])
        except Exception:
            return False
        self._well_at = time.monotonic()
        return True

    def _recover(self, error: BaseException) -> None:
        log.error("model %s failed (%s); opening it again", self._name, first_line(error))
        self._let_go()
        with self._lock:
            self._recovery = threading.Thread(target=self._reopen, name=f"recovery of {self._name}", daemon=True)
            self._recovery.start()

    def _reopen(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closed.is_set():
            try:
                self.open()
            except Exception as error:  # whatever it is: the next try may succeed
                log.error("model %s cannot be opened again (%s)", self._name, first_line(error))
            else:
                log.warning("model %s is ready again", self._name)
                return
            self._closed.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _let_go(self) -> None:
        with self._lock:
            segmenter, self.segmenter, self.ready = self.segmenter, None, False
        if segmenter is not None:
            segmenter.close()
