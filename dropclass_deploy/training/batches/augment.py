"""Augmentation of one image and its mask, every random number from a generator that the caller gives.

The pixel operations are torchvision.transforms.v2's; the draws are ours, because v2's transforms read the global random
state, and a run that is resumed or split over workers must see the same images. Masks are never interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from dropclass_deploy.training.batches.draws import draw
from dropclass_deploy.training.batches.focus import Focus
from dropclass_deploy.training.batches.photometry import Change, draw_change
from dropclass_deploy.training.batches.windows import Corner, Size, cut_mask, inside, random_corner
from dropclass_deploy.training.recipe import Photometric, TrainSection


@dataclass(frozen=True)
class Augment:
    """Random scale, crop, flip and photometric change.

    Attributes:
        crop: (height, width) of the result, or None for the whole image.
        scale: smallest and largest factor of what is cropped.
        flip: probability of a horizontal flip.
        photometric: largest changes.
        ignore_index: label of what the crop shows beyond the image.
        fill: RGB (0–255) beyond the image: the network's mean, so that it is 0 after normalisation.
    """

    crop: Size | None
    scale: tuple[float, float]
    flip: float
    photometric: Photometric
    ignore_index: int
    fill: tuple[float, float, float]

    @classmethod
    def from_recipe(cls, train: TrainSection, ignore_index: int, mean: tuple[float, float, float]) -> Augment:
        """The augmentation a recipe asks for."""
        fill = (255 * mean[0], 255 * mean[1], 255 * mean[2])
        # Without train.crop the recipe has no scale: a curriculum cuts from the images as they are.
        scale = (1.0, 1.0) if train.crop is None else train.scale
        return cls(train.crop, scale, train.flip, train.photometric, ignore_index, fill)

    def geometry(
        self,
        image: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        *,
        crop: Size | None = None,
        focus: Focus | None = None,
    ) -> tuple[Tensor, Tensor, Change]:
        """Augment one pair in all but its colours: their change is drawn, and made when other images are mixed in, or later.

        Args:
            image: uint8 (3, H, W).
            mask: uint8 (H, W).
            generator: source of every draw, but for those of ``focus``.
            crop: (height, width) in place of the attribute's.
            focus: what the crop has to show; a whole image shows what it shows.

        Returns:
            uint8 (3, h, w) and uint8 (h, w) with (h, w) = the crop, or (H, W) without one; and the change of colours.
        """
        size = crop or self.crop
        if size is not None:
            image, mask = self._scale_and_crop(image, mask, size, generator, focus)
        if draw(generator, 0.0, 1.0) < self.flip:
            image, mask = V.horizontal_flip(image), V.horizontal_flip(mask)
        return image, mask, draw_change(self.photometric, generator)

    def _scale_and_crop(
        self, image: Tensor, mask: Tensor, crop: Size, generator: torch.Generator, focus: Focus | None
    ) -> tuple[Tensor, Tensor]:
        """Cut the window in source pixels first and resize it once: the same picture as scaling the whole image."""
        factor = draw(generator, *self.scale)
        window = (max(1, round(crop[0] / factor)), max(1, round(crop[1] / factor)))
        corner = random_corner(mask.shape, window, generator)
        if focus is not None:
            corner = focus.corner(mask, corner, window, crop)
        image = self._cut(image, corner, window)
        mask = cut_mask(mask, corner, window, self.ignore_index)
        resized = V.resize(image, list(crop), interpolation=InterpolationMode.BILINEAR, antialias=True)
        ids = V.resize(mask[None], list(crop), interpolation=InterpolationMode.NEAREST_EXACT)[0]
        return resized, ids

    def _cut(self, image: Tensor, corner: Corner, window: Size) -> Tensor:
        part = inside(image.shape[-2:], corner, window)
        if part.shape == window:
            return image[:, part.rows, part.columns]
        canvas = torch.tensor(self.fill).round().to(torch.uint8).view(3, 1, 1).expand(3, *window).clone()
        canvas[:, part.to_rows, part.to_columns] = image[:, part.rows, part.columns]
        return canvas


def normalise(images: Tensor, scale: Tensor, shift: Tensor, *, channels_last: bool = False) -> Tensor:
    """Network input float32 (N, 3, H, W) of uint8 images, as ``Preprocess.normalise`` makes it.

    ``channels_last`` is its memory layout, not its shape; the values are the same.
    """
    if channels_last:  # while a pixel is three bytes: a quarter of what float32 would have to move
        images = images.contiguous(memory_format=torch.channels_last)
    return images.float() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def resize_pair(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image (3, H, W) and mask (H, W) at a fixed size; the mask by nearest neighbour."""
    resized = V.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return resized, F.interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]
