"""Random changes of colour: drawn with the sample, applied in the worker or later on the network's device.

The operations are torchvision.transforms.v2's on uint8, image by image, wherever they run: the same code and the same numbers
(but for the rounding of another device's float32). They are nine tenths of what augmentation costs: on one CPU core
16 of 17 ms for a 240×320 crop, 70 of 74 ms for 512×1024. On a GPU they are some fifty small kernels an image, about
0.3 ms of launches whatever the size of the crop, and they stand between the steps, while a worker's time does not. So they
move to the GPU from a crop of 2¹⁷ pixels (256×512) on, where one image costs a core 17 ms or more; not below, and
never on the CPU, where the network needs the same cores.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from dropclass_deploy.training.batches.draws import draw
from dropclass_deploy.training.recipe import Photometric, TrainSection

Change = tuple[float, float, float, float]
"""Factors of brightness, contrast and saturation, and the turn of the hue."""

_PAYS_FROM_PIXELS = 2**17


def draw_change(limits: Photometric, generator: torch.Generator) -> Change:
    """A change within ``limits``. Every number is drawn, used or not: one option does not shift the others' numbers."""
    brightness, contrast, saturation = (
        draw(generator, 1 - limit, 1 + limit) for limit in (limits.brightness, limits.contrast, limits.saturation)
    )
    return brightness, contrast, saturation, draw(generator, -limits.hue, limits.hue)


def change_colours(image: Tensor, limits: Photometric, change: Change) -> Tensor:
    """An image uint8 (3, H, W) with changed colours; what ``limits`` leave at 0 is not touched."""
    if limits.brightness:
        image = V.adjust_brightness(image, change[0])
    if limits.contrast:
        image = V.adjust_contrast(image, change[1])
    if limits.saturation:
        image = V.adjust_saturation(image, change[2])
    if limits.hue:
        image = V.adjust_hue(image, change[3])
    return image


def change_batch(images: Tensor, limits: Photometric, changes: tuple[Change, ...]) -> Tensor:
    """Each image of uint8 (N, 3, H, W) with its own change, on its device; as they are when the workers made the changes."""
    if not changes:
        return images
    return torch.stack([change_colours(image, limits, change) for image, change in zip(images, changes, strict=True)])


def is_deferred(train: TrainSection, device: torch.device, size: tuple[int, int]) -> bool:
    """Whether colours are changed on ``device``; ``size`` is (height, width) of what the network is given."""
    limits = train.photometric
    if not any((limits.brightness, limits.contrast, limits.saturation, limits.hue)):
        return False
    if train.augment_on == "auto":
        return device.type != "cpu" and size[0] * size[1] >= _PAYS_FROM_PIXELS
    return train.augment_on == "device"
