"""Composites beside the class activation maps of several networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.spurious.activation_maps import Maps

_MIN_SIDE = 144  # pixels; a digit of 8 pixels is too small to be looked at
_GAP = 8
_WHITE = 255


def comparison(image: npt.NDArray[np.uint8], maps: Sequence[Maps]) -> npt.NDArray[np.uint8]:
    """One row, uint8 (h, w, 3): the composite (H, W), then the composite under each map (H, W).

    Red is what speaks for the class, blue what speaks against it, each map by its own largest value.
    """
    times = max(1, -(-_MIN_SIDE // image.shape[0]))
    grey = np.repeat(image[..., None], 3, axis=2)
    tiles = [_larger(tile, times) for tile in (grey, *(_under(grey, one) for one in maps))]
    gap = np.full((tiles[0].shape[0], _GAP, 3), _WHITE, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _under(grey: npt.NDArray[np.uint8], one: Maps) -> npt.NDArray[np.uint8]:
    largest = float(np.abs(one).max()) or 1.0
    weight = (np.abs(one) / largest)[..., None]
    colour = np.where(one[..., None] > 0, np.array([255, 0, 0]), np.array([0, 0, 255]))
    # Half of the grey stays where the map is strongest: the digit under it must be seen.
    mixed: npt.NDArray[np.uint8] = ((1 - weight / 2) * grey + weight / 2 * colour).round().astype(np.uint8)
    return mixed


def _larger(tile: npt.NDArray[np.uint8], times: int) -> npt.NDArray[np.uint8]:
    return tile.repeat(times, axis=0).repeat(times, axis=1)
