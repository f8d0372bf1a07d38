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
from dropclass_deploy.training.batches.photometry import Change, draw_change
from dropclass_deploy.training.recipe import Photometric, TrainSection


@dataclass(frozen=True)
class Augment:
    """Random scale, crop, flip and photometric change.

    Attributes:
        crop: (height, width) of the result, or None for the whole image.
        scale: smallest and largest factor.
        flip: probability of a horizontal flip.
        photometric: largest changes.
        ignore_index: label of what the crop shows beyond the image.
        fill: RGB (0–255) beyond the image: the network's mean, so that it is 0 after normalisation.
    """

    crop: tuple[int, int] | None
    scale: tuple[float, float]
    flip: float
    photometric: Photometric
    ignore_index: int
    fill: tuple[float, float, float]

    @classmethod
    def from_recipe(cls, train: TrainSection, ignore_index: int, mean: tuple[float, float, float]) -> Augment:
        """The augmentation a recipe asks for."""
        fill = (255 * mean[0], 255 * mean[1], 255 * mean[2])
        return cls(train.crop, train.scale, train.flip, train.photometric, ignore_index, fill)

    def geometry(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Change]:
        """Augment one pair in all but its colours: their change is drawn, and made when other images are mixed in, or later.

        Args:
            image: uint8 (3, H, W).
            mask: uint8 (H, W).
            generator: source of every draw.

        Returns:
            uint8 (3, h, w) and uint8 (h, w) with (h, w) = ``crop``, or (H, W) without one; and the change of colours.
        """
        if self.crop is not None:
            image, mask = self._scale_and_crop(image, mask, generator)
        if draw(generator, 0.0, 1.0) < self.flip:
            image, mask = V.horizontal_flip(image), V.horizontal_flip(mask)
        return image, mask, draw_change(self.photometric, generator)

    def _scale_and_crop(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut the window in source pixels first and resize it once: the same picture as scaling the whole image."""
        height, width = self.crop or (0, 0)
        factor = draw(generator, *self.scale)
        window = (max(1, round(height / factor)), max(1, round(width / factor)))
        top = _offset(image.shape[-2], window[0], generator)
        left = _offset(image.shape[-1], window[1], generator)
        image = self._cut(image, top, left, window)
        mask = _cut_mask(mask, top, left, window, self.ignore_index)
        size = [height, width]
        resized = V.resize(image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
        ids = V.resize(mask[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
        return resized, ids

    def _cut(self, image: Tensor, top: int, left: int, window: tuple[int, int]) -> Tensor:
        inside = _inside(image.shape[-2:], top, left, window)
        if inside.shape == window:
            return image[:, inside.rows, inside.columns]
        canvas = torch.tensor(self.fill).round().to(torch.uint8).view(3, 1, 1).expand(3, *window).clone()
        canvas[:, inside.to_rows, inside.to_columns] = image[:, inside.rows, inside.columns]
        return canvas


@dataclass(frozen=True)
class _Inside:
    """The part of a window that lies in the image: where it is there, and where it goes in the window."""

    rows: slice
    columns: slice
    to_rows: slice
    to_columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def _inside(size: torch.Size, top: int, left: int, window: tuple[int, int]) -> _Inside:
    rows = slice(max(top, 0), min(top + window[0], size[0]))
    columns = slice(max(left, 0), min(left + window[1], size[1]))
    return _Inside(
        rows,
        columns,
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )


def _cut_mask(mask: Tensor, top: int, left: int, window: tuple[int, int], ignore_index: int) -> Tensor:
    inside = _inside(mask.shape, top, left, window)
    if inside.shape == window:
        return mask[inside.rows, inside.columns]
    canvas = torch.full(window, ignore_index, dtype=mask.dtype)
    canvas[inside.to_rows, inside.to_columns] = mask[inside.rows, inside.columns]
    return canvas


def _offset(size: int, window: int, generator: torch.Generator) -> int:
    """First pixel of the window, anywhere it lies wholly inside the image, or the image wholly inside it."""
    slack = size - window
    low, high = min(0, slack), max(0, slack)
    return low + int(draw(generator, 0.0, 1.0) * (high - low + 1))


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
