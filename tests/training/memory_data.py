"""A data set in memory whose pictures say which image they are, and where in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.training.batches.loader import training_loader
from dropclass_deploy.training.recipe import TrainSection

STILL = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)


class MemoryData(Dataset):
    """Red is the image's index, green the row, blue the column; no side is above 256."""

    def __init__(self, masks: Sequence[Pixels], names: Sequence[str]) -> None:
        self.spec, self.split, self.classes = "memory:", "train", ClassTable(names=tuple(names))
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    def key(self, index: int) -> str:
        return str(index)

    def image(self, index: int) -> Pixels:
        height, width = self._masks[index].shape
        rows, columns = np.indices((height, width))
        return np.stack([np.full((height, width), index), rows, columns], axis=-1).astype(np.uint8)

    def mask(self, index: int) -> Pixels:
        return self._masks[index]


def batches_of(data: Dataset, train: TrainSection, start: int = 0, **keys):
    """(images, labels) of every step, and which samples the sampler says they are."""
    loader, batches = training_loader(data, train, Preprocess(), start=start, **keys)
    return [(images, labels) for images, labels, _ in loader], list(batches)
