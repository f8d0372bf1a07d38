"""Which image each sample of a run shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.focus import Focus


class Order(Protocol):
    """Says of the samples of a run, by number, what they show; the same in whatever order it is asked."""

    def index(self, number: int) -> int:
        """The image of a sample, by its index in the data."""
        ...

    def focus(self, number: int) -> Focus | None:
        """What the crop of a sample has to show; None when it may lie anywhere."""
        ...


class Passes:
    """Pass after pass over the images, each in its own random order.

    A pass ends within a batch: no image is dropped at its end.

    Args:
        images: indices in the data; one that stands here twice is shown twice a pass.
        seed: of the run.
    """

    def __init__(self, images: Sequence[int], seed: int) -> None:
        self.images = images
        self.seed = seed
        self._kept: tuple[int, list[int]] = (-1, [])

    def index(self, number: int) -> int:
        """The image of a sample."""
        epoch, position = divmod(number, len(self.images))
        return self.images[self._order(epoch)[position]]

    def focus(self, number: int) -> None:
        """Crops lie anywhere."""
        del number

    def _order(self, epoch: int) -> list[int]:
        """The order of one pass; the last one asked for is kept."""
        if self._kept[0] != epoch:
            generator = generator_for(self.seed, 1, epoch)
            self._kept = (epoch, torch.randperm(len(self.images), generator=generator).tolist())
        return self._kept[1]


def repeated(shows: npt.NDArray[np.bool_], times: int) -> list[int]:
    """The indices of a pass in which every image that ``shows`` the class, bool (images,), stands ``times`` times."""
    indices: list[int] = np.repeat(np.arange(len(shows)), np.where(shows, times, 1)).tolist()
    return indices
