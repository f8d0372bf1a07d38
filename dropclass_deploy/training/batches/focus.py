"""A crop that shows a class: random windows until one holds enough of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dropclass_deploy.training.batches.windows import Corner, Size, centred_corner, inside, random_corner

_SHARE = 200
"""A 200th of the crop has to be of the class when the recipe does not say. DAFormer's own figures, half of 3,000 pixels of
a crop of 512×512, are a 175th."""


def enough(min_pixels: int | None, size: Size) -> int:
    """Pixels of a class that a picture of ``size`` has to show: ``min_pixels``, or a 200th of its own when that is None."""
    return max(1, size[0] * size[1] // _SHARE) if min_pixels is None else min_pixels


@dataclass(frozen=True)
class Focus:
    """What the crop of one sample has to show.

    Attributes:
        class_id: of the class.
        min_pixels: of the crop that have to be of the class; None for a 200th of it.
        crops: windows that are tried.
        generator: source of the draws of all windows but the first.
    """

    class_id: int
    min_pixels: int | None
    crops: int
    generator: torch.Generator

    def corner(self, mask: Tensor, first: Corner, window: Size, crop: Size) -> Corner:
        """Where the window lies.

        The first of the windows that shows enough is taken: ``min_pixels`` of the crop, or all that the mask has. ``first``
        is the first of them, others lie anywhere, and the last has a random pixel of the class in its middle (the only one
        when ``crops`` is 1). When none shows enough, it is the one that shows the most: one pixel of the class at least.

        Args:
            mask: uint8 (H, W).
            first: (top, left) of the window drawn so far.
            window: (height, width) in the mask's own pixels.
            crop: (height, width) that the window is resized to. A pixel of the mask counts as crop area / window area pixels
                of the crop; nearest neighbour resizing gives this number on average.
        """
        # In NumPy: it counts what is true in half a megapixel in 0.04 ms, torch's sum takes 3.3 (one core).
        of_class = mask.numpy() == self.class_id
        total = int(np.count_nonzero(of_class))
        if total == 0:  # preprocess.size may leave no pixel of a small object
            return first
        per_crop_pixel = window[0] * window[1] / (crop[0] * crop[1])
        needed = min(total, math.ceil(enough(self.min_pixels, crop) * per_crop_pixel))
        best, most = first, -1
        for trial in range(1, self.crops + 1):
            corner = self._corner(trial, mask.shape, of_class, first, window)
            part = inside(mask.shape, corner, window)
            shown = int(np.count_nonzero(of_class[part.rows, part.columns]))
            if shown >= needed:
                return corner
            if shown > most:
                best, most = corner, shown
        return best

    def _corner(
        self, trial: int, size: torch.Size, of_class: npt.NDArray[np.bool_], first: Corner, window: Size
    ) -> Corner:
        if trial == self.crops:
            pixels = np.flatnonzero(of_class)
            chosen = int(pixels[int(torch.randint(len(pixels), (), generator=self.generator))])
            return centred_corner(size, window, divmod(chosen, size[1]))
        return first if trial == 1 else random_corner(size, window, self.generator)
