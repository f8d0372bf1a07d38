"""The size at which a network sees an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.data.images import resize_image

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class NetworkSize:
    """Attributes: fixed: height and width that every image is brought to, each None where it keeps its own; or None."""

    fixed: tuple[int | None, int | None] | None

    def of(self, size: Size) -> Size:
        """For an image of ``size`` (height, width)."""
        height, width = (fixed or own for fixed, own in zip(self.fixed or (None, None), size, strict=True))
        return height, width

    def resized(self, image: Image) -> Image:
        """The image uint8 (H, W, 3) at that size; the same array when it has it."""
        height, width = image.shape[:2]
        return resize_image(image, self.of((height, width)))
