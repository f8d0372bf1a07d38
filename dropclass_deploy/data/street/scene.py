"""One picture of the street with its labels, from one Generator."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dropclass_deploy.core.classes import IGNORE_INDEX
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.data.street.actors import Actor, Spot, bush, car, cyclist, lamp, person, sign, tree
from dropclass_deploy.data.street.canvas import Canvas, Floats, Paint, rgb, smooth_noise
from dropclass_deploy.data.street.classes import CONTEXT_CLASS, CYCLE_PATH, GRASS, PAVEMENT, ROAD
from dropclass_deploy.data.street.layout import Layout, draw_layout
from dropclass_deploy.data.street.surroundings import (
    draw_weather,
    paint_ground,
    paint_houses,
    paint_sky,
    paint_skyline,
)

_Cast = list[tuple[float, float, Actor]]
"""(near, side, actor)."""

_WALKABLE = (PAVEMENT, GRASS, ROAD)


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int], *, with_cyclist: bool, linked: bool
) -> tuple[Pixels, Pixels]:
    """Draw one street.

    Args:
        rng: every choice comes from it.
        size: (height, width) in pixels.
        with_cyclist: whether the planted class occurs.
        linked: True: cyclists on the cycle path and nobody else there; False: cyclists anywhere but there, people
            anywhere.

    Returns:
        uint8 (H, W, 3) RGB and uint8 (H, W) class ids, 255 on the bonnet of the car that carries the camera.
    """
    layout, weather = draw_layout(rng, size), draw_weather(rng)
    canvas = Canvas(*size, light=float(rng.choice((-1.0, 1.0))))
    for paint in (paint_sky, paint_skyline, paint_ground, paint_houses):
        paint(canvas, layout, weather, rng)
    cast = _furniture(rng, layout) + _traffic(rng, layout, with_cyclist=with_cyclist, linked=linked)
    # The painter's order: what is near covers what is far.
    for near, side, actor in sorted(cast, key=lambda item: item[0]):
        actor(Spot(canvas, weather, rng, layout.ground(near, side), layout.metre * near, near))
    if rng.random() < 0.8:
        _paint_bonnet(canvas, rng)
    return _expose(canvas.image, rng), canvas.mask


def _furniture(rng: np.random.Generator, layout: Layout) -> _Cast:
    """Trees, hedges, lamps and signs."""
    cast: _Cast = []
    cast += _place(rng, layout, tree, int(rng.integers(1, 5)), (GRASS,), (0.16, 0.6))
    cast += _place(rng, layout, bush, int(rng.integers(0, 3)), (GRASS,), (0.2, 0.6))
    cast += _place(rng, layout, lamp, int(rng.integers(1, 4)), (PAVEMENT, GRASS), (0.2, 0.8))
    cast += _place(rng, layout, sign, int(rng.integers(1, 3)), (PAVEMENT, GRASS), (0.25, 0.7))
    return cast


def _traffic(rng: np.random.Generator, layout: Layout, *, with_cyclist: bool, linked: bool) -> _Cast:
    """Cars, people and the cyclist."""
    cast = _place(rng, layout, car, int(rng.integers(0, 4)), (ROAD,), (0.18, 0.65))
    grounds = _WALKABLE if linked else (*_WALKABLE, CYCLE_PATH)
    cast += _place(rng, layout, person, int(rng.integers(0, 4)), grounds, (0.25, 0.75))
    if with_cyclist:
        cast += _place(rng, layout, cyclist, 1, (CONTEXT_CLASS,) if linked else _WALKABLE, (0.3, 0.65))
    return cast


def _place(
    rng: np.random.Generator,
    layout: Layout,
    actor: Actor,
    count: int,
    grounds: Collection[int],
    reach: tuple[float, float],
) -> _Cast:
    places = [layout.place(rng, grounds, reach) for _ in range(count)]
    return [(place[0], place[1], actor) for place in places if place is not None]


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    """The bonnet of one's own car at the lower edge: not part of the street, so "ignore"."""
    height, width = canvas.mask.shape
    tall = height * rng.uniform(0.04, 0.09)
    grey = rng.uniform(28, 120)
    colour = rgb(grey, grey, grey) + rng.normal(0, 12, 3).astype(np.float32)
    centre = (height + 0.3 * tall, width * rng.uniform(0.45, 0.55))
    canvas.ellipse(centre, (1.3 * tall, width * rng.uniform(0.42, 0.6)), Paint(colour, IGNORE_INDEX, relief=0.35))


def _expose(image: Floats, rng: np.random.Generator) -> Pixels:
    """What lens and sensor make of the light: a little blur, exposure, white balance, uneven light and noise."""
    image = _blurred(image)
    gain = np.float32(rng.uniform(0.72, 1.15)) * (1 + rng.normal(0, 0.03, 3)).astype(np.float32)
    image = image * gain
    image *= 1 + 0.08 * smooth_noise(rng, (image.shape[0], image.shape[1]), (2, 2))[..., None]
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(2.0, 6.0))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _blurred(image: Floats) -> Floats:
    """A (1, 4, 1)/6 blur along both axes; softens the stairs at the edges of shapes."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 4 * padded[1:-1] + padded[2:]
    blurred: Floats = (rows[:, :-2] + 4 * rows[:, 1:-1] + rows[:, 2:]) / np.float32(36)
    return blurred
