"""What a segmenter gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segmentation:
    """One result.

    Attributes:
        mask: uint8 (H, W) of class ids, at the image's source size.
        class_names: by class id.
        latency_ms: by stage: "decode" (only for encoded bytes), "preprocess", "infer", "mask"; of a batch, those of the
            images that ran together.
    """

    mask: Mask
    class_names: tuple[str, ...]
    latency_ms: dict[str, float]
