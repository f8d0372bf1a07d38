"""The preprocessing specification: what happens between a decoded image and the network's input.

One value object is written into the run, the artifact and the ONNX metadata, and every consumer executes the same one.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.sliding_window import MAX_PIXELS, Window

Triple = tuple[float, float, float]
ValueRange = tuple[float, float]
"""Raw values (low, high) of an image of one channel that become 0 and 255."""

_WRITTEN_WHEN_SET = ("value_range", "window")


class Preprocess(BaseModel):
    """RGB image, 0–255 → network input: ``(image / 255 − mean) / std``, NCHW float32.

    Attributes:
        mean: a channel, of the values in [0, 1], in R, G, B order.
        std: a channel, in R, G, B order; above 0.
        size: (height, width) that every image is resized to (Pillow bilinear with antialiasing) before the network, or
            None to run each image at its own size. The logits are resized back to the source size before the argmax.
        value_range: (low, high): raw values of an image of one channel that become 0 and 255 before all else (see
            ``window``); None where images are 8-bit as they are. An image of three 8-bit channels is never windowed. A
            None is written nowhere: files and digests without a range are those of versions that knew none.
        window: what slides over the image, after it was resized to ``size`` where there is one; the network sees one
            window at a time and the logits are blended (see ``core.sliding_window``). None runs the image as a whole, and
            is written nowhere either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    size: tuple[int, int] | None = Field(default=None)
    value_range: ValueRange | None = None
    window: Window | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not np.isfinite(value) for value in self.mean) or any(not (np.isfinite(v) and v > 0) for v in self.std):
            raise ValueError("mean must be finite and std finite and above 0")
        if self.size is not None and (min(self.size) < 1 or self.size[0] * self.size[1] > MAX_PIXELS):
            raise ValueError(f"size is (height, width) in pixels, each at least 1, at most {MAX_PIXELS} in all")
        if self.value_range is not None and not is_value_range(*self.value_range):
            raise ValueError("value_range is (low, high), finite, low below high")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        return {key: value for key, value in content.items() if value is not None or key not in _WRITTEN_WHEN_SET}

    @property
    def seen_size(self) -> tuple[int, int] | None:
        """(height, width) of what the network sees at once: a window, or the resized image; None where any image goes."""
        return self.window.size if self.window is not None else self.size

    def digest(self) -> str:
        """SHA-256 over the specification in a canonical form: equal digests, equal preprocessing."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def check_value_range(self, other: ValueRange | None, ours: str, theirs: str) -> None:
        """Refuse data whose images became 8-bit in another way than the network's.

        Args:
            other: of the data.
            ours: what this preprocessing belongs to, for the message.
            theirs: what ``other`` belongs to.

        Raises:
            DataError: when the two ranges differ.
        """
        if other == self.value_range:
            return
        remedy = f"write value_range: {list(self.value_range)} in" if self.value_range else "leave value_range out of"
        raise DataError(
            f"{theirs} has {_told(other)} and {ours} {_told(self.value_range)}",
            expected="the value range that the network was trained with",
            remedy=f"{remedy} the classes.yaml of the data, or name other data",
        )

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


def is_value_range(low: float, high: float) -> bool:
    """Whether raw values from ``low`` to ``high`` can be mapped to 0 … 255: finite, low below high."""
    # Of two huge numbers the difference alone may be infinite; NaN fails the first comparison.
    return low < high and math.isfinite(high - low)


def window(values: npt.NDArray[Any], value_range: ValueRange, name: str = "the image") -> npt.NDArray[np.uint8]:
    """An image of one channel as RGB: ``round((v − low) / (high − low) · 255)``, clipped, in three equal channels.

    Computed in float64; halves go to the even neighbour, infinities to 0 and 255.

    Args:
        values: raw values (H, W), any integer or float type.
        value_range: (low, high).
        name: of the image, for the message.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DataError: when a value is NaN, which has no place between black and white.
    """
    low, high = value_range
    exact = values.astype(np.float64)
    if np.isnan(exact).any():
        raise DataError(
            f"{name} holds NaN at {int(np.isnan(exact).sum())} of {exact.size} pixels",
            expected="numbers",
            remedy="give these pixels a value, such as that of the background",
        )
    with np.errstate(over="ignore"):  # far outside the range: infinite, and clipped
        shares = (exact - low) / (high - low) * 255
    grey = np.rint(np.clip(shares, 0, 255)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _told(value_range: ValueRange | None) -> str:
    return "no value range" if value_range is None else f"the value range {value_range[0]:g} … {value_range[1]:g}"
