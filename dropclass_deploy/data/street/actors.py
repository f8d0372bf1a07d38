"""What stands and moves on the street: trees, poles, signs, cars, people and cyclists.

Each function draws one, with its foot at a point of the ground; sizes are in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dropclass_deploy.data.street.canvas import Canvas, Colour, Paint, Point, rgb
from dropclass_deploy.data.street.classes import CAR, CYCLIST, PERSON, POLE, SIGN, VEGETATION
from dropclass_deploy.data.street.surroundings import Weather

_CLOTHES = (
    (40, 52, 92),
    (150, 44, 44),
    (52, 96, 70),
    (200, 190, 170),
    (58, 58, 62),
    (196, 150, 60),
    (96, 70, 110),
    (70, 130, 160),
)
_SKIN = ((226, 184, 154), (198, 146, 110), (142, 98, 72), (96, 66, 50))
_CARS = ((172, 38, 36), (42, 66, 128), (214, 214, 216), (36, 38, 42), (130, 136, 142), (30, 96, 88), (206, 170, 60))
_SIGNS = ((196, 32, 36), (34, 84, 170), (232, 196, 40))


@dataclass(frozen=True)
class Spot:
    """A place on the street as a drawing board: metres right of and above a point of the ground.

    Attributes:
        foot: pixel of the point.
        scale: pixels of a metre there.
        near: of the point, for the haze.
    """

    canvas: Canvas
    weather: Weather
    rng: np.random.Generator
    foot: Point
    scale: float
    near: float

    def at(self, right: float, up: float) -> Point:
        """Pixel of a point in front of the spot."""
        return self.foot[0] - up * self.scale, self.foot[1] + right * self.scale

    def paint(self, colour: Colour, label: int | None, relief: float = 0.0) -> Paint:
        """Paint in the haze of this distance."""
        return Paint(self.weather.tone(colour, self.near), label, relief=relief)

    def pick(self, colours: tuple[tuple[int, int, int], ...], spread: float = 12.0) -> Colour:
        """One of the colours, varied a little."""
        chosen = colours[int(self.rng.integers(len(colours)))]
        return rgb(*chosen) + self.rng.normal(0.0, spread, 3).astype(np.float32)

    def disc(self, right: float, up: float, radii: Point, paint: Paint) -> None:
        """A filled ellipse; ``radii`` along y and x in metres."""
        self.canvas.ellipse(self.at(right, up), (radii[0] * self.scale, radii[1] * self.scale), paint)

    def block(self, heights: Point, widths: Point, paint: Paint, right: float = 0.0) -> None:
        """A trapezium between the heights (upper, lower), of the widths there."""
        rows = (self.foot[0] - heights[0] * self.scale, self.foot[0] - heights[1] * self.scale)
        self.canvas.tapered(rows, self.at(right, 0.0)[1], (widths[0] * self.scale, widths[1] * self.scale), paint)

    def stroke(self, start: Point, end: Point, width: float, paint: Paint) -> None:
        """A stroke between two points given as (right, up)."""
        self.canvas.line(self.at(*start), self.at(*end), width * self.scale, paint)

    def shadow(self, width: float) -> None:
        """A soft dark patch on the ground; labels stay."""
        paint = Paint(rgb(24, 24, 30), None, opacity=0.4)
        self.canvas.ellipse(self.at(0.0, 0.0), (0.12 * width * self.scale, 0.55 * width * self.scale), paint)


Actor = Callable[[Spot], None]


def tree(spot: Spot) -> None:
    """A trunk and a crown of overlapping leaves."""
    rng = spot.rng
    tall, wide = rng.uniform(2.8, 5.0), rng.uniform(0.8, 1.5)
    spot.shadow(wide)
    spot.block((tall * 0.7, 0.0), (0.18, 0.3), spot.paint(rgb(84, 66, 50), VEGETATION, relief=0.3))
    green = rgb(rng.uniform(44, 92), rng.uniform(88, 126), rng.uniform(34, 60))
    for _ in range(6):
        leaf = green + rng.normal(0, 9, 3).astype(np.float32)
        radii = (wide * rng.uniform(0.5, 0.75), wide * rng.uniform(0.5, 0.8))
        right, up = rng.normal(0, 0.38 * wide), tall * 0.78 + rng.normal(0, 0.35 * wide)
        spot.disc(right, up, radii, spot.paint(leaf, VEGETATION, relief=0.28))


def bush(spot: Spot) -> None:
    """A low hedge."""
    rng = spot.rng
    green = rgb(rng.uniform(50, 84), rng.uniform(92, 124), rng.uniform(38, 58))
    for right in (-0.5, 0.1, 0.6):
        radii = (rng.uniform(0.4, 0.7), rng.uniform(0.4, 0.7))
        spot.disc(right, 0.4, radii, spot.paint(green + rng.normal(0, 8, 3).astype(np.float32), VEGETATION, 0.28))


def lamp(spot: Spot) -> None:
    """A lamp post with its arm."""
    grey = spot.rng.uniform(70, 150)
    tall, arm = spot.rng.uniform(3.6, 5.0), spot.rng.choice((-0.9, 0.9))
    paint = spot.paint(rgb(grey, grey, grey + 4), POLE, relief=0.25)
    spot.block((tall, 0.0), (0.13, 0.2), paint)
    spot.stroke((0.0, tall), (arm, tall + 0.15), 0.12, paint)
    spot.disc(arm, tall + 0.08, (0.12, 0.3), paint)


def sign(spot: Spot) -> None:
    """A traffic sign on its pole: a disc, a square or a triangle."""
    rng = spot.rng
    grey = rng.uniform(110, 160)
    tall, size = rng.uniform(1.9, 2.5), rng.uniform(0.42, 0.56)
    spot.block((tall, 0.0), (0.1, 0.1), spot.paint(rgb(grey, grey, grey), POLE))
    colour, white = spot.pick(_SIGNS, 8.0), rgb(232, 232, 230)
    shape = int(rng.integers(3))
    if shape == 0:
        spot.disc(0.0, tall, (size, size), spot.paint(colour, SIGN))
        spot.disc(0.0, tall, (size * 0.55, size * 0.55), spot.paint(white, SIGN))
    elif shape == 1:
        spot.block((tall + size, tall - size), (1.9 * size, 1.9 * size), spot.paint(colour, SIGN))
        spot.block((tall + 0.2 * size, tall - 0.3 * size), (1.1 * size, 1.1 * size), spot.paint(white, SIGN))
    else:
        spot.block((tall + size, tall - size), (0.1, 2.3 * size), spot.paint(colour, SIGN))
        spot.block((tall + 0.2 * size, tall - 0.6 * size), (0.1, 1.1 * size), spot.paint(white, SIGN))


def car(spot: Spot) -> None:
    """A car from in front or behind."""
    rng = spot.rng
    wide, tall = rng.uniform(1.6, 1.85), rng.uniform(1.35, 1.75)
    colour = spot.pick(_CARS)
    body, tyre = spot.paint(colour, CAR, relief=0.18), spot.paint(rgb(26, 26, 28), CAR)
    spot.shadow(wide * 1.15)
    for right in (-0.38 * wide, 0.38 * wide):
        spot.block((0.42, 0.0), (0.24, 0.24), tyre, right)
    spot.block((tall, 0.85), (0.66 * wide, 0.94 * wide), body)
    spot.block((tall - 0.12, 0.9), (0.56 * wide, 0.8 * wide), spot.paint(rgb(52, 62, 74), CAR, relief=0.3))
    spot.block((0.92, 0.22), (wide, 0.97 * wide), body)
    lights = rgb(236, 226, 190) if rng.random() < 0.5 else rgb(190, 30, 28)
    for right in (-0.38 * wide, 0.38 * wide):
        spot.disc(right, 0.66, (0.09, 0.16), spot.paint(lights, CAR))
    spot.block((0.48, 0.36), (0.5, 0.5), spot.paint(rgb(220, 218, 200), CAR))
    spot.block((0.3, 0.2), (0.9 * wide, 0.9 * wide), spot.paint(colour * np.float32(0.5), CAR))


def person(spot: Spot) -> None:
    """Someone on foot."""
    rng = spot.rng
    tall, stride = rng.uniform(1.6, 1.95), rng.uniform(0.05, 0.28)
    legs, shirt = spot.paint(spot.pick(_CLOTHES), PERSON), spot.paint(spot.pick(_CLOTHES), PERSON, relief=0.2)
    spot.shadow(0.7)
    for end in (-stride, stride):
        spot.stroke((0.0, 0.5 * tall), (end, 0.06), 0.2, legs)
    for hand in (-0.27, 0.27):
        spot.stroke((0.4 * hand, 0.78 * tall), (hand, rng.uniform(0.45, 0.6) * tall), 0.13, shirt)
    spot.disc(0.0, 0.66 * tall, (0.2 * tall, 0.23), shirt)
    _head(spot, 0.0, 0.92 * tall, PERSON)


def cyclist(spot: Spot) -> None:
    """Someone on a bicycle, more or less from the side: a person's size and clothes, with two wheels below."""
    rng = spot.rng
    ahead = float(rng.choice((-1.0, 1.0))) * rng.uniform(0.6, 1.0)
    tyre, frame = spot.paint(rgb(30, 30, 32), CYCLIST), spot.paint(spot.pick(_CLOTHES, 25.0), CYCLIST)
    legs, shirt = spot.paint(spot.pick(_CLOTHES), CYCLIST), spot.paint(spot.pick(_CLOTHES), CYCLIST, relief=0.2)
    spot.shadow(1.5 * abs(ahead))
    for hub in (-0.55 * ahead, 0.55 * ahead):
        _wheel(spot, hub, abs(ahead), tyre)
    hip, shoulder, bars = (-0.18 * ahead, 0.98), (0.16 * ahead, 1.46), (0.42 * ahead, 1.02)
    for start, end in (((-0.55 * ahead, 0.36), hip), (hip, (0.05 * ahead, 0.36)), ((0.05 * ahead, 0.36), bars)):
        spot.stroke(start, end, 0.08, frame)
    spot.stroke((0.55 * ahead, 0.36), bars, 0.08, frame)
    spot.stroke(hip, (0.2 * ahead, 0.72), 0.19, legs)
    spot.stroke((0.2 * ahead, 0.72), (0.06 * ahead, 0.3), 0.16, legs)
    spot.stroke(hip, shoulder, 0.4, shirt)
    spot.stroke(shoulder, bars, 0.13, shirt)
    _head(spot, 0.28 * ahead, 1.7, CYCLIST)


def _wheel(spot: Spot, hub: float, width: float, tyre: Paint) -> None:
    """A tyre with spokes that let the ground shine through; the whole disc belongs to the cyclist."""
    radii = (0.36 * spot.scale, 0.36 * width * spot.scale)
    spokes = Paint(rgb(60, 60, 64), CYCLIST, opacity=0.3)
    spot.canvas.ellipse(spot.at(hub, 0.36), radii, spokes)
    spot.canvas.ring(spot.at(hub, 0.36), radii, 0.08 * spot.scale, tyre)


def _head(spot: Spot, right: float, up: float, label: int) -> None:
    hair = spot.pick(((46, 36, 30), (110, 80, 48), (30, 30, 32), (180, 160, 120)), 10.0)
    spot.disc(right, up + 0.05, (0.16, 0.15), spot.paint(hair, label))
    spot.disc(right, up - 0.02, (0.12, 0.12), spot.paint(spot.pick(_SKIN, 8.0), label))
