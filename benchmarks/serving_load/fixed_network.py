"""A server around a network that takes a fixed time, however many images it is given.

python -m serving_load.fixed_network INFER_MS SETTINGS      the settings as JSON
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.images import ImageLimits, read_image
from dropclass_deploy.serving.segmentation import Segmentation
from dropclass_deploy.serving.server.hosting import HostedModel
from dropclass_deploy.serving.server.run import run
from dropclass_deploy.serving.server.settings import ServerSettings

NAME = "fixed"
CLASSES = ClassTable(names=("nothing", "something"))
PREPROCESS = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
Image = npt.NDArray[np.uint8]


class FixedSegmenter:
    """In a segmenter's place: every mask is class 0, and every batch takes as long."""

    def __init__(self, infer_ms: float) -> None:
        self._infer_ms = infer_ms

    @property
    def classes(self) -> ClassTable:
        """Two."""
        return CLASSES

    @property
    def preprocess(self) -> Preprocess:
        """Of no consequence."""
        return PREPROCESS

    def read_image(self, source: Path | bytes, limits: ImageLimits | None = None) -> Image:
        """Decode an image file, as a segmenter does: uint8 (H, W, 3)."""
        return read_image(source, limits=limits or ImageLimits())

    def batch_key(self, image: Image) -> tuple[int, ...]:
        """Images of one size run together."""
        return image.shape

    def segment_batch(self, images: Sequence[Image]) -> list[Segmentation]:
        """Sleep, as a thread does that waits for a GPU; then masks of class 0, uint8 (H, W) each."""
        time.sleep(self._infer_ms / 1e3)
        return [
            Segmentation(np.zeros(image.shape[:2], np.uint8), CLASSES.names, {"infer": self._infer_ms})
            for image in images
        ]

    def close(self) -> None:
        """Nothing is held."""


def main(infer_ms: float, settings: ServerSettings) -> None:
    """Serve until a signal."""
    run([HostedModel(NAME, lambda: FixedSegmenter(infer_ms), settings)], settings)


if __name__ == "__main__":
    main(float(sys.argv[1]), ServerSettings.model_validate_json(sys.argv[2]))
