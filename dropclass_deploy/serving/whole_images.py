"""Images of one size through a network, as many at a time as it takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dropclass_deploy.serving.logits_resize import logits_to_mask
from dropclass_deploy.serving.networks import LogitsNetwork, MaskNetwork
from dropclass_deploy.serving.stages import size_named, timed

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Size = tuple[int, int]
Item = TypeVar("Item")


def masks_of_mask_network(network: MaskNetwork, images: Sequence[Image], latency_ms: dict[str, float]) -> list[Mask]:
    """Masks uint8 (h, w) of images uint8 (h, w, 3) of one size, which is the masks'."""
    size, masks = images[0].shape[:2], []
    for part in _parts(images, network.input.batch):
        with timed(latency_ms, "preprocess"):
            feeds = network.input.feeds(_stacked(part))
        with timed(latency_ms, "infer"), size_named(size):
            output = network.run(feeds, size)
        with timed(latency_ms, "mask"):
            masks += [np.ascontiguousarray(mask) for mask in network.masks(output, len(part))]
    return masks


def masks_from_logits(
    network: LogitsNetwork, images: Sequence[Image], targets: Sequence[Size], latency_ms: dict[str, float]
) -> list[Mask]:
    """Masks of images uint8 (h, w, 3) of one size, each at a size (height, width) of its own."""
    masks = []
    for part in _parts(list(zip(images, targets, strict=True)), network.input.batch):
        with timed(latency_ms, "preprocess"):
            feeds = network.feeds(_stacked([image for image, _ in part]))
        with timed(latency_ms, "infer"), size_named(part[0][0].shape[:2]):
            logits = network.run(feeds)
        with timed(latency_ms, "mask"):
            masks += [logits_to_mask(planes, target) for planes, (_, target) in zip(logits, part, strict=False)]
    return masks


def alike(keys: Sequence[Hashable]) -> list[list[int]]:
    """Positions of equal keys, together."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _parts(items: Sequence[Item], batch: int | None) -> Iterator[Sequence[Item]]:
    """As many at a time as a static batch has; all of them for a dynamic one."""
    step = batch or len(items)
    return (items[start : start + step] for start in range(0, len(items), step))


def _stacked(images: Sequence[Image]) -> Image:
    """(N, h, w, 3); one image is not copied."""
    return images[0][None] if len(images) == 1 else np.stack(images)
