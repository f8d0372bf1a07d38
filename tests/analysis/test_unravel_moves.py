"""The rules of what only moves elements: by hand, and the computed places against the moved indices."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from ways_back import back, only, plane

from dropclass_deploy.analysis.unravel.fixations import walk_back
from dropclass_deploy.analysis.unravel.points import Points
from dropclass_deploy.analysis.unravel.rules import KEEPS, POINTWISE, back_through
from dropclass_deploy.analysis.unravel.rules.moves import moved
from dropclass_deploy.analysis.unravel.tape import record


def test_concatenation_slices_padding_and_permutation() -> None:
    image = torch.arange(12, dtype=torch.float64).reshape(1, 2, 2, 3)

    def run(x: Tensor) -> Tensor:
        both = torch.cat([x[:, 1:], torch.zeros(1, 1, 2, 3, dtype=x.dtype), x.flip(3)], dim=1)
        return F.pad(both.permute(0, 2, 3, 1), (0, 0, 1, 0)).contiguous()

    # Output (0, y, x + 1, channel): channels are x's second, a constant, x's two turned around.
    assert only(run, image, (0, 1, 2, 0)) == (0, 1, 1, 1)
    assert only(run, image, (0, 1, 1, 3)) == (0, 1, 1, 2)
    assert back(run, image, (0, 1, 1, 1)) == [], "a constant has no place"
    assert back(run, image, (0, 1, 0, 0)) == [], "nor has padding"


RESHAPES = {
    "view": lambda x: x.view(6, 20),
    "reshape": lambda x: x.permute(0, 2, 3, 1).reshape(4, 30),
    "flatten": lambda x: x.flatten(1),
    "squeeze": lambda x: x.squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "contiguous": lambda x: x.to(memory_format=torch.channels_last).contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last).flatten(2),
    "cat of channels": lambda x: torch.cat([x, torch.ones(1, 1, 4, 5), x.flip(1), x], dim=1),
    "cat of rows": lambda x: torch.cat([x[:, :, 1:], x], dim=2),
    "cat of columns": lambda x: torch.cat([torch.ones(1, 6, 4, 2), x, x[..., :1]], dim=-1),
    "cat by default": lambda x: torch.cat([x, x]),
    "cat with nothing": lambda x: torch.cat([torch.zeros(0), x, x[:, :0], x], dim=1),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_the_computed_index_is_that_of_the_moved_indices(name: str) -> None:
    tape, result = record(RESHAPES[name], torch.randn(1, 6, 4, 5), KEEPS, POINTWISE)
    start = Points.starting_at(torch.arange(result.numel()))
    computed = {"cat", "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "clone"}
    found = [step for step in tape.steps if step.name in computed]
    assert found
    for step in found:
        points = Points.starting_at(torch.arange(math.prod(step.output.shape)))
        assert in_each(back_through(step, points, tape)) == in_each(moved(step, points, tape))
    # And where each way ends, by the values: the elements of the result are the image's.
    values = torch.arange(120.0).reshape(1, 6, 4, 5) + 7
    ends = RESHAPES[name](values).reshape(-1)
    for one in range(result.numel()):
        points, _ = walk_back(tape, Points.starting_at(torch.tensor([one])))
        assert [int(index) + 7 for index in points.index] == [int(value) for value in ends[one : one + 1] if value >= 7]
    assert walk_back(tape, start)[0].total == int((ends >= 7).sum())


def in_each(back) -> dict[int, list[int]]:
    """The places by the tensor that they are in; a tensor without any is left out."""
    places: dict[int, list[int]] = {}
    for value, points in back:
        places[value.id] = sorted([*places.get(value.id, []), *points.index.tolist()])
    return {value: own for value, own in places.items() if own}


def test_concatenating_and_reshaping_build_no_map_of_the_whole_tensor() -> None:
    def run(x: Tensor) -> Tensor:
        return torch.cat([x, x.reshape(1, 3, 8, 2).reshape(x.shape)], dim=1).flatten(2).unsqueeze(1)

    def refused(*_, **__):
        raise AssertionError("the operator is run on indices")

    tape, _ = record(run, torch.randn(1, 3, 4, 4), KEEPS, POINTWISE)
    tape.steps = [dataclasses.replace(step, function=refused) for step in tape.steps]
    points, ended = walk_back(tape, Points.starting_at(torch.tensor([5, 50])))
    assert points.index.tolist() == [2, 5]
    assert ended == {}


def test_split_channels_keep_apart() -> None:
    image = torch.arange(4, dtype=torch.float64).reshape(1, 4, 1, 1)
    assert only(lambda x: torch.add(*x.chunk(2, dim=1)), image, (0, 1, 0, 0)) == (0, 3, 0, 0)
    assert only(lambda x: x.split([1, 3], dim=1)[1], image, (0, 1, 0, 0)) == (0, 2, 0, 0)


def test_nearest_resizing() -> None:
    image = plane([[1, 2], [3, 4]])
    assert only(lambda x: F.interpolate(x, scale_factor=2), image, (0, 0, 1, 2)) == (0, 0, 0, 1)
