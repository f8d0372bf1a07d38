"""The artifact as a contender."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from dropclass_deploy.serving.benchmark.contender import END_TO_END, MODEL, TRANSFER, Query
from dropclass_deploy.serving.segmenter import Segmenter

OURS = "ours"


class Ours:
    """An artifact: ``models/model.mask.onnx`` with its inputs resident, from NumPy, and through the ``Segmenter``.

    An artifact of a fixed size runs its mask file at that size in the first two scopes; in ``end_to_end`` the mask at
    source size comes from the logits.
    """

    name = OURS

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.runtime = segmenter.mask_runtime.name
        self.precision = segmenter.precision
        self.provider = segmenter.provider

    def prepare(self, encoded: bytes) -> Mapping[str, Query]:
        """The three scopes on one encoded image."""
        image = self._segmenter.network_image(self._segmenter.read_image(encoded))
        resident = self._segmenter.mask_runtime.bind(self._segmenter.mask_feeds(image))
        return {
            MODEL: partial(_without_stages, resident),
            TRANSFER: partial(_without_stages, partial(self._segmenter.network_mask, image)),
            END_TO_END: partial(self._from_bytes, encoded),
        }

    def segment(self, encoded: bytes) -> npt.NDArray[np.uint8]:
        """The mask at source size, uint8 (H, W): what ``end_to_end`` computes."""
        return self._segmenter.segment_bytes(encoded).mask

    def _from_bytes(self, encoded: bytes) -> Mapping[str, float]:
        return self._segmenter.segment_bytes(encoded).latency_ms


def _without_stages(call: Callable[[], object]) -> Mapping[str, float]:
    call()
    return {}
