"""What stands still: sky, distant skyline, the ground with its strips and markings, and the house fronts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dropclass_deploy.data.street.canvas import Canvas, Colour, Flags, Floats, rgb, smooth_noise
from dropclass_deploy.data.street.classes import (
    BUILDING,
    CYCLE_PATH,
    GRASS,
    PAVEMENT,
    ROAD,
    SKY,
    VEGETATION,
)
from dropclass_deploy.data.street.layout import Layout

_DISTANCE = 6.0
"""Metres from the camera to the ground at the lower edge: turns 1/near into metres along the street."""

_WALLS = ((178, 120, 96), (196, 178, 150), (150, 142, 138), (122, 92, 84), (208, 200, 186), (164, 150, 120))


@dataclass(frozen=True)
class Weather:
    """Light and air of one picture.

    Attributes:
        zenith: colour of the sky above.
        haze: colour of the sky at the horizon, and of what is far away.
        fog: share of the haze at the horizon, 0 … 1.
        cover: of clouds, 0 … 1.
    """

    zenith: Colour
    haze: Colour
    fog: float
    cover: float

    def tone(self, colour: Floats, near: float | Floats) -> Floats:
        """``colour`` as it is seen at ``near``: the farther, the more haze."""
        share = np.float32(self.fog) * (1.0 - np.asarray(near, dtype=np.float32)) ** 2
        return (colour + (self.haze - colour) * share).astype(np.float32)


def draw_weather(rng: np.random.Generator) -> Weather:
    """Blue, overcast or evening, with more or less haze."""
    kinds = (
        (rgb(92, 150, 214), rgb(198, 218, 234), 0.45),
        (rgb(158, 168, 178), rgb(206, 208, 208), 0.85),
        (rgb(110, 120, 168), rgb(236, 190, 150), 0.5),
    )
    zenith, haze, cover = kinds[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
    shift = rng.normal(0.0, 7.0, 3).astype(np.float32)
    return Weather(zenith + shift, haze + shift, float(rng.uniform(0.15, 0.7)), cover * float(rng.uniform(0.4, 1.0)))


def paint_sky(canvas: Canvas, layout: Layout, weather: Weather, rng: np.random.Generator) -> None:
    """Sky over the whole picture, lighter towards the horizon, with clouds."""
    rows = np.arange(layout.size[0], dtype=np.float32)[:, None, None]
    height = np.clip(1.0 - rows / layout.horizon, 0.0, 1.0)
    clouds = smooth_noise(rng, layout.size, (9, 5)) + 0.6 * smooth_noise(rng, layout.size, (20, 12))
    white = np.clip(clouds[..., None] * 1.6 - 0.6 + weather.cover, 0.0, 1.0) * weather.cover
    sky = weather.haze + (weather.zenith - weather.haze) * height
    canvas.image[:] = sky + (rgb(238, 238, 240) - sky) * white
    canvas.mask[:] = SKY


def paint_skyline(canvas: Canvas, layout: Layout, weather: Weather, rng: np.random.Generator) -> None:
    """Distant woods and blocks along the horizon."""
    height, width = layout.size
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width)
    woods = height * (0.03 + 0.035 * (1 + smooth_noise(rng, (1, width), (1, 14)))[0])
    steps = rng.uniform(0.0, 0.15, 12) * (rng.random(12) < 0.6)
    blocks = height * steps[columns * 12 // width]
    below = rows < layout.horizon + 1
    far_wall = weather.tone(rgb(*_WALLS[int(rng.integers(len(_WALLS)))]), 0.12)
    canvas.fill(below & (rows > layout.horizon - blocks), far_wall, BUILDING)
    texture = 10 * smooth_noise(rng, layout.size, (48, 64))[..., None]
    canvas.fill(below & (rows > layout.horizon - woods), weather.tone(rgb(66, 96, 52) + texture, 0.12), VEGETATION)


def paint_ground(canvas: Canvas, layout: Layout, weather: Weather, rng: np.random.Generator) -> None:
    """Every strip with its colour and texture, the markings, and the shadow of the houses."""
    near, side = layout.near_of_rows(), layout.side_of_pixels()
    ground = np.broadcast_to(np.arange(layout.size[0])[:, None] >= layout.horizon, layout.size)
    edges = np.array([strip.left for strip in layout.strips[1:]], dtype=np.float32)
    labels = np.array([strip.label for strip in layout.strips], dtype=np.uint8)[np.digitize(side, edges)]
    colours = _ground_colours(rng)[labels]
    grain = 5 * smooth_noise(rng, layout.size, (30, 40)) + 7 * smooth_noise(rng, layout.size, (7, 5))
    colours += (grain + _texture(labels, near, side))[..., None]
    colours += (labels == GRASS)[..., None] * 12 * smooth_noise(rng, layout.size, (60, 90))[..., None]
    np.copyto(colours, rgb(226, 226, 218), where=_markings(layout, labels, near, side, rng)[..., None])
    if rng.random() < 0.6:
        shade = _shadow(layout, canvas.light, rng, side)
        colours *= np.where(shade, np.float32(rng.uniform(0.6, 0.8)), np.float32(1.0))[..., None]
    toned = weather.tone(colours, near[..., None])
    np.copyto(canvas.image, toned, where=ground[..., None])
    np.copyto(canvas.mask, labels, where=ground)


def _ground_colours(rng: np.random.Generator) -> Floats:
    """Colour by class id, (12, 3); only the classes of the ground are set."""
    table = np.zeros((12, 3), dtype=np.float32)
    grey = rng.uniform(78, 112)
    table[ROAD] = (grey, grey, grey + rng.uniform(0, 8))
    table[PAVEMENT] = rng.uniform(138, 172) + rgb(4, 0, -6)
    table[GRASS] = (rng.uniform(84, 124), rng.uniform(122, 148), rng.uniform(50, 74))
    table[CYCLE_PATH] = (rng.uniform(140, 172), rng.uniform(84, 106), rng.uniform(72, 96))
    return table


def _texture(labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], near: Floats, side: Floats) -> Floats:
    """Slabs of the pavement: darker joints across and along, which fade with the distance."""
    metres = _DISTANCE / near
    joints = ((side * 1.4) % 1.0 < 0.1) | ((metres * 0.9) % 1.0 < 0.14)
    return np.where(joints & (labels == PAVEMENT), -34.0 * near, 0.0).astype(np.float32)


def _markings(
    layout: Layout,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    near: Floats,
    side: Floats,
    rng: np.random.Generator,
) -> Flags:
    """White paint: the dashed middle line, the edges of the cycle path, now and then a zebra crossing. (H, W)"""
    metres = _DISTANCE / near
    dashes = (np.abs(side) < 0.07) & ((metres / 4 + rng.random()) % 1.0 < 0.5)
    paths = [strip for strip in layout.strips if strip.label == CYCLE_PATH]
    for strip in paths:
        inner = min(strip.left, strip.right, key=abs)
        dashes |= (np.abs(side - inner) < 0.05) & ((metres / 2) % 1.0 < 0.7)
    if rng.random() < 0.3:
        start = rng.uniform(8, 14)
        bars = (metres > start) & (metres < start + 2.4) & ((side * 1.1) % 1.0 < 0.5)
        dashes |= bars & (labels == ROAD)
    return dashes


def _shadow(layout: Layout, light: float, rng: np.random.Generator, side: Floats) -> Flags:
    """The ground that the houses on the side of the light keep in shadow. (H, W)"""
    left, right = layout.facades
    length = rng.uniform(1.0, 6.0)
    return side > right - length if light > 0 else side < left + length


def paint_houses(canvas: Canvas, layout: Layout, weather: Weather, rng: np.random.Generator) -> None:
    """House fronts along both edges of the street, in perspective; gaps between them show what lies behind."""
    for side in layout.facades:
        if rng.random() < 0.88:
            _paint_row_of_houses(canvas, layout, weather, rng, side)


def _paint_row_of_houses(
    canvas: Canvas, layout: Layout, weather: Weather, rng: np.random.Generator, side: float
) -> None:
    height, width = layout.size
    columns = np.arange(width, dtype=np.float32)
    # Where a front meets the ground: vanish + near × slope is the column, so near follows from the column.
    slope = layout.foot - layout.vanish + side * layout.metre
    near = (columns - layout.vanish) / slope
    seen = (near > 0.02) & (near < 4.0)
    near = np.clip(near, 0.02, 4.0)
    metres = _DISTANCE / near + rng.uniform(0, 12)
    block = (metres / rng.uniform(7, 12)).astype(np.int64) % 16
    tall = rng.uniform(3.5, 9.0, 16) * (rng.random(16) < 0.85)
    rows = np.arange(height, dtype=np.float32)[:, None]
    base = layout.horizon + near * (height - layout.horizon)
    above = (base - rows) / (layout.metre * near)
    wall = seen & (above > 0) & (above < tall[block])
    walls = rgb(*np.ravel(_WALLS)).reshape(-1, 3)[rng.integers(len(_WALLS), size=16)]
    walls = walls + rng.normal(0, 9, (16, 3)).astype(np.float32)
    lit = 1.06 if side * canvas.light < 0 else 0.78
    colour = np.broadcast_to(walls[block] * np.float32(lit), (height, width, 3)).copy()
    windows = _windows(above, metres, rng)
    np.copyto(colour, rgb(62, 74, 92) + 26 * smooth_noise(rng, layout.size, (24, 24))[..., None], where=windows)
    canvas.fill(wall, weather.tone(colour, np.minimum(near, 1.0)[None, :, None]), BUILDING)


def _windows(above: Floats, metres: Floats, rng: np.random.Generator) -> Flags:
    """Panes on a front, by height above the ground and metres along the street. (H, W, 1)"""
    across = (metres / rng.uniform(1.6, 2.6)) % 1.0
    up = (above / rng.uniform(1.4, 1.9)) % 1.0
    return (((across > 0.35) & (across < 0.8))[None, :] & (up > 0.38) & (up < 0.82) & (above > 0.6))[..., None]
