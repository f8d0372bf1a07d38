"""Rare class sampling: a class is drawn first, then an image that shows it, then a crop that does.

DAFormer (Hoyer et al., arXiv 2111.14887): P(c) = exp((1 − f_c) / T) / Σ_c' exp((1 − f_c') / T), f_c the class's share of
the labelled pixels. Its code (github.com/lhoyer/DAFormer, mmseg/datasets/uda_dataset.py) takes images of more than 3,000
pixels of the class, any of them equally likely, and up to ten further crops until one holds more than half as many.

Deviations: one number of pixels serves image and crop; a class that no image shows that often is drawn from the images that
show more of it than most do, where the code stops; the last crop is laid around a pixel of the class.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.statistics import Table
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.focus import Focus, enough
from dropclass_deploy.training.batches.windows import Size
from dropclass_deploy.training.recipe import RareClassSamplingOptions


class RareClasses:
    """Images, and what their crops show, by rare class sampling; an ``order.Order``.

    There are no passes: an image may be shown often, or never.

    Args:
        by_image: pixels of each class in each image, (images, C).
        options: of the recipe.
        size: (height, width) of the largest crop, or of the network's input when images stay whole.
        seed: of the run.

    Attributes:
        probabilities: of the classes, float64 (C,); 0 for one that no image shows.
        images: of each class, those that it is shown by, int64 (n,).

    Raises:
        DataError: when no image shows any class.
    """

    def __init__(self, by_image: Table, options: RareClassSamplingOptions, size: Size, seed: int) -> None:
        self.probabilities = class_probabilities(by_image.sum(axis=0, dtype=np.int64), options.temperature)
        min_pixels = enough(options.min_pixels, size)
        self.images = [_showing(column, min_pixels) for column in by_image.T]
        self.options = options
        self.seed = seed

    def index(self, number: int) -> int:
        """The image of a sample."""
        return self._drawn(number)[0]

    def focus(self, number: int) -> Focus:
        """The class that a sample was drawn for."""
        _, class_id, generator = self._drawn(number)
        return Focus(class_id, self.options.min_pixels, self.options.crops, generator)

    def _drawn(self, number: int) -> tuple[int, int, torch.Generator]:
        """Image and class of a sample, and the generator to go on with."""
        generator = generator_for(self.seed, 6, number)
        class_id = int(torch.multinomial(self.probabilities, 1, generator=generator))
        images = self.images[class_id]
        return int(images[int(torch.randint(len(images), (), generator=generator))]), class_id, generator


def class_probabilities(pixels: npt.NDArray[np.int64], temperature: float) -> torch.Tensor:
    """P(c) of every class, float64 (C,), from its pixels (C,); 0 for a class without any.

    Raises:
        DataError: when no class has a pixel.
    """
    present = torch.from_numpy(pixels > 0)
    if not present.any():
        raise DataError("no training image holds a labelled pixel", expected="masks of the classes in the class table")
    share = torch.from_numpy(pixels / pixels.sum())
    # Less the largest of them, as the softmax allows: no temperature is too low for float64.
    scores = (share[present].min() - share) / temperature
    return torch.softmax(scores.where(present, -torch.inf), dim=0)


def _showing(pixels: npt.NDArray[np.uint32], min_pixels: int) -> npt.NDArray[np.int64]:
    """Images with ``min_pixels`` of a class; where none has, those that show no less of it than the median of all that do."""
    if not pixels.any():
        return np.zeros(0, dtype=np.int64)
    most = pixels.max() >= min_pixels
    return np.flatnonzero(pixels >= (min_pixels if most else np.median(pixels[pixels > 0])))
