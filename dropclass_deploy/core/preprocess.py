"""The preprocessing specification: what happens between a decoded image and the network's input.

One value object is written into the run, the artifact and the ONNX metadata, and every consumer executes the same one.
"""

from __future__ import annotations

import hashlib
import json
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Triple = tuple[float, float, float]


class Preprocess(BaseModel):
    """RGB image, 0–255 → network input: ``(image / 255 − mean) / std``, NCHW float32.

    Attributes:
        mean: a channel, of the values in [0, 1], in R, G, B order.
        std: a channel, in R, G, B order; above 0.
        size: (height, width) that every image is resized to (Pillow bilinear with antialiasing) before the network, or
            None to run each image at its own size. The logits are resized back to the source size before the argmax.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    size: tuple[int, int] | None = Field(default=None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not np.isfinite(value) for value in self.mean) or any(not (np.isfinite(v) and v > 0) for v in self.std):
            raise ValueError("mean must be finite and std finite and above 0")
        if self.size is not None and min(self.size) < 1:
            raise ValueError("size is (height, width) in pixels, each at least 1")
        return self

    def digest(self) -> str:
        """SHA-256 over the specification in a canonical form: equal digests, equal preprocessing."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def normalise(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Network input of RGB images of the right size.

        Args:
            images: uint8 (N, H, W, 3) or (H, W, 3), RGB.

        Returns:
            float32 (N, 3, H, W), contiguous; N is 1 for a single image.
        """
        batch = images if images.ndim == 4 else images[None]
        # The same two roundings, in the same order, as the graph in model.mask.onnx: one multiplication, one addition.
        scale, shift = self.scale_and_shift()
        planes = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32)
        planes *= scale[:, None, None]
        planes += shift[:, None, None]
        return planes

    def scale_and_shift(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(3,) float32 each, so that ``pixel * scale + shift`` is ``(pixel / 255 − mean) / std``."""
        std = np.asarray(self.std, dtype=np.float64)
        scale = 1.0 / (255.0 * std)
        shift = -np.asarray(self.mean, dtype=np.float64) / std
        return scale.astype(np.float32), shift.astype(np.float32)
