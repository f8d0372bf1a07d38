"""What a segmenter gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.data.images import encode_png
from dropclass_deploy.serving.stages import timed

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segmentation:
    """One result.

    Attributes:
        mask: uint8 (H, W) of class ids, at the image's source size.
        class_names: by class id.
        latency_ms: by stage: "decode" (only for encoded bytes), "preprocess", "infer", "mask"; of a batch, those of the
            images that ran together; "encode" once ``png`` was called.
    """

    mask: Mask
    class_names: tuple[str, ...]
    latency_ms: dict[str, float]

    def png(self) -> bytes:
        """The mask as an 8-bit PNG of class ids."""
        with timed(self.latency_ms, "encode"):
            return encode_png(self.mask)
