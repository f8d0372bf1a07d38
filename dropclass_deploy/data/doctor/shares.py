"""How much of a split each class is: pixels, images, class weight, rare or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import ratio
from dropclass_deploy.data.statistics import ClassStatistics, median_frequency_weights


@dataclass(frozen=True)
class ClassShare:
    """One class in one split.

    Attributes:
        name: of the class.
        rare: among the less frequent half of the training split.
        pixels: number.
        pixel_share: of the labelled pixels, 0 … 1.
        images: that contain it.
        image_share: of the images, 0 … 1.
        weight: median frequency balancing; 0 for a class without a pixel.
    """

    name: str
    rare: bool
    pixels: int
    pixel_share: float
    images: int
    image_share: float
    weight: float


def class_shares(classes: ClassTable, stats: ClassStatistics) -> tuple[ClassShare, ...]:
    """Shares in class-id order; ``classes.rare`` says which are marked. A split without a labelled pixel has shares of 0."""
    pixel_share = np.nan_to_num(ratio(stats.pixels, np.full_like(stats.pixels, stats.pixels.sum())))
    image_share = np.nan_to_num(ratio(stats.images, np.full_like(stats.images, stats.num_images)))
    weights = median_frequency_weights(stats)
    return tuple(
        ClassShare(
            name=name,
            rare=classes.is_rare(index),
            pixels=int(stats.pixels[index]),
            pixel_share=float(pixel_share[index]),
            images=int(stats.images[index]),
            image_share=float(image_share[index]),
            weight=float(weights[index]),
        )
        for index, name in enumerate(classes.names)
    )


def with_rare(classes: ClassTable, statistics: Mapping[str, ClassStatistics]) -> ClassTable:
    """The table with the rare classes of the training split (the first split where there is no "train").

    None are rare where no pixel is labelled: every class would be as rare as the next.
    """
    if not statistics:
        return classes
    first = statistics.get("train", next(iter(statistics.values())))
    return classes.with_rare_from(first.pixels) if first.pixels.any() else classes
