"""Where things are: the camera over a flat street, and the strips that the street is made of.

A point on the ground is given by ``near`` (0 at the horizon, 1 at the lower edge of the picture; 1/near is the distance)
and ``side`` (metres to the right of the middle of the road). One metre at ``near`` is ``near × metre`` pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from dropclass_deploy.data.street.canvas import Floats, Point
from dropclass_deploy.data.street.classes import CYCLE_PATH, GRASS, PAVEMENT, ROAD


@dataclass(frozen=True)
class Strip:
    """A band of the ground along the road, from ``left`` to ``right`` metres."""

    left: float
    right: float
    label: int


@dataclass(frozen=True)
class Layout:
    """One street before one camera.

    Attributes:
        size: (height, width) of the picture in pixels.
        horizon: its row.
        vanish: the column where the street ends.
        foot: the column of the middle of the road at the lower edge.
        metre: pixels of a metre at the lower edge.
        strips: from left to right, without gaps.
    """

    size: tuple[int, int]
    horizon: float
    vanish: float
    foot: float
    metre: float
    strips: tuple[Strip, ...]

    def ground(self, near: float, side: float) -> Point:
        """Pixel of a point on the ground."""
        middle = self.vanish + (self.foot - self.vanish) * near
        return self.horizon + near * (self.size[0] - self.horizon), middle + side * self.metre * near

    def near_of_rows(self) -> Floats:
        """``near`` of every row, (H, 1); the rows above the horizon get a small positive number."""
        rows = np.arange(self.size[0], dtype=np.float32)[:, None]
        near: Floats = np.maximum((rows - self.horizon) / (self.size[0] - self.horizon), 1e-3).astype(np.float32)
        return near

    def side_of_pixels(self) -> Floats:
        """``side`` of every pixel as if all were on the ground, (H, W)."""
        near = self.near_of_rows()
        middle = self.vanish + (self.foot - self.vanish) * near
        columns = np.arange(self.size[1], dtype=np.float32)[None, :]
        side: Floats = ((columns - middle) / (self.metre * near)).astype(np.float32)
        return side

    @property
    def facades(self) -> tuple[float, float]:
        """``side`` of the house fronts left and right."""
        return self.strips[0].left, self.strips[-1].right

    def place(self, rng: np.random.Generator, labels: Collection[int], reach: tuple[float, float]) -> Point | None:
        """A random (near, side) on a strip of one of the classes, inside the picture; None when there is no such strip.

        Args:
            labels: classes of ground that will do.
            reach: least and greatest ``near``.
        """
        strips = [strip for strip in self.strips if strip.label in labels]
        if not strips:
            return None
        for _ in range(40):
            strip = strips[int(rng.integers(len(strips)))]
            near = float(np.exp(rng.uniform(*np.log(reach))))
            margin = 0.3 * (strip.right - strip.left)
            side = float(rng.uniform(strip.left + margin, strip.right - margin))
            column = self.ground(near, side)[1]
            if 0.06 * self.size[1] < column < 0.94 * self.size[1]:
                return near, side
        return None


def draw_layout(rng: np.random.Generator, size: tuple[int, int]) -> Layout:
    """A random street: horizon, vanishing point, road width, and what lies beside the road on either hand."""
    height, width = size
    half_road = rng.uniform(1.9, 2.7)
    with_path = rng.permutation([True, bool(rng.random() < 0.35)])
    left, right = (_side_strips(rng, bool(path)) for path in with_path)
    strips = [*_laid(-half_road, left, -1.0)[::-1], Strip(-half_road, half_road, ROAD), *_laid(half_road, right, 1.0)]
    horizon = height * rng.uniform(0.3, 0.45)
    return Layout(
        size=size,
        horizon=horizon,
        vanish=width * rng.uniform(0.35, 0.65),
        foot=width * rng.uniform(0.38, 0.62),
        metre=(height - horizon) * rng.uniform(0.34, 0.42),
        strips=tuple(strips),
    )


def _side_strips(rng: np.random.Generator, with_path: bool) -> list[tuple[int, float]]:
    """Class and width in metres of the strips on one hand, from the road outwards."""
    path, walk, lawn = (
        (CYCLE_PATH, rng.uniform(1.7, 2.4)),
        (PAVEMENT, rng.uniform(1.5, 2.6)),
        (GRASS, rng.uniform(1.5, 3.2)),
    )
    if not with_path:
        return [walk, lawn] if rng.random() < 0.6 else [lawn, walk]
    orders = ([path, walk, lawn], [walk, path, lawn], [lawn, path, walk])
    return orders[int(rng.choice(3, p=(0.5, 0.25, 0.25)))]


def _laid(edge: float, strips: list[tuple[int, float]], direction: float) -> list[Strip]:
    laid = []
    for label, width in strips:
        outer = edge + direction * width
        laid.append(Strip(min(edge, outer), max(edge, outer), label))
        edge = outer
    return laid
