"""From single elements of a result to those of an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dropclass_deploy.analysis.unravel.fixations import walk_back
from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules import KEEPS, POINTWISE
from dropclass_deploy.analysis.unravel.tape import Tape, record


def back(run, image: Tensor, output_place: tuple[int, ...]) -> list[tuple[tuple[int, ...], int]]:
    """From one element of run(image) to elements of the image, with the direction; [] when the point ends."""
    return on_tape(*record(run, image, KEEPS, POINTWISE), output_place)


def on_tape(tape: Tape, result: Tensor, output_place: tuple[int, ...]) -> list[tuple[tuple[int, ...], int]]:
    start = int(np.ravel_multi_index(output_place, tuple(result.shape)))
    points, ended = walk_back(tape, Points.starting_at(torch.tensor([start])))
    assert points.total + sum(ended.values()) == 1
    return [
        (tuple(int(at) for at in np.unravel_index(int(one), tape.image.shape)), int(sign))
        for one, sign in zip(points.index, points.sign, strict=True)
    ]


def only(run, image: Tensor, output_place: tuple[int, ...]) -> tuple[int, ...]:
    found = back(run, image, output_place)
    assert len(found) == 1
    return found[0][0]


def plane(rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]
