"""Learning rates and parameter groups."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dropclass_deploy.training.loop.optimiser import build_optimiser, learning_rate, set_learning_rate
from dropclass_deploy.training.recipe import TrainSection


def test_poly_by_hand() -> None:
    train = TrainSection(steps=4, lr=1.0, power=2.0)
    # (1 − 0/4)², (1 − 1/4)², (1 − 2/4)², (1 − 3/4)²
    assert [learning_rate(train, step) for step in range(4)] == [1.0, 0.5625, 0.25, 0.0625]


def test_poly_agrees_with_torch() -> None:
    train = TrainSection(steps=20, lr=0.3, power=0.9)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=20, power=0.9)
    for step in range(20):
        # torch multiplies step by step, ours is the closed form: rounding only.
        assert learning_rate(train, step) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()


def test_step_by_hand() -> None:
    train = TrainSection(steps=8, lr=1.0, schedule="step", step_at=(0.25, 0.5), step_gamma=0.5)
    # The rate falls with step 2 = 0.25 · 8 and with step 4.
    assert [learning_rate(train, step) for step in range(8)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("steps", [10, 97, 700])
def test_step_agrees_with_torch(steps: int) -> None:
    at = (0.29, 0.5, 0.7)
    train = TrainSection(steps=steps, lr=0.3, schedule="step", step_at=at)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    # The first whole step at or after each share; exact fractions, for 0.29 · 100 is not 29 in float64.
    milestones = [math.ceil(Fraction(str(share)) * steps) for share in at]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    for step in range(steps):
        # torch multiplies milestone by milestone, ours is a power: rounding only.
        assert learning_rate(train, step) == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()


def test_the_step_rate_warms_up_too() -> None:
    train = TrainSection(steps=8, lr=1.0, schedule="step", step_at=(0.5,), warmup_steps=2)
    assert [learning_rate(train, step) for step in (0, 1, 3, 4)] == [0.5, 1.0, 1.0, 0.1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"step_at": (0.3,)}, r"step_at is given with schedule poly: it has a say in schedule step only"),
        ({"schedule": "constant", "step_gamma": 0.5}, r"step_gamma is given with schedule constant"),
        ({"schedule": "step", "step_at": (0.75, 0.5)}, r"each share of the run must be larger than the one before"),
        ({"schedule": "step", "step_at": (0.5, 0.5)}, r"each share of the run must be larger than the one before"),
        ({"schedule": "step", "step_at": ()}, r"at least 1 item"),
        ({"schedule": "step", "step_at": (1.0,)}, r"less than 1"),
        ({"schedule": "step", "step_gamma": 0.0}, r"greater than 0"),
    ],
)
def test_a_step_schedule_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSection(steps=10, **given)


def test_warm_up_rises_to_the_full_rate() -> None:
    train = TrainSection(steps=10, lr=1.0, warmup_steps=4, schedule="constant")
    assert [learning_rate(train, step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_poly_rate_does_not_jump_where_the_warm_up_ends() -> None:
    train = TrainSection(steps=1000, lr=1.0, warmup_steps=500, power=0.9)
    rates = [learning_rate(train, step) for step in range(1000)]
    # Neither part moves by more than a 500th of the full rate in a step.
    assert max(abs(after - before) for before, after in itertools.pairwise(rates)) <= 1 / 500
    assert rates[600] == pytest.approx(0.4**0.9)


OPTIMISERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@pytest.mark.parametrize(("name", "kind"), OPTIMISERS.items())
def test_norms_and_biases_are_not_decayed(name: str, kind: type) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimiser = build_optimiser(module, TrainSection(steps=1, optimizer=name, weight_decay=0.1))
    assert type(optimiser) is kind
    decayed = [p for group in optimiser.param_groups if group["weight_decay"] for p in group["params"]]
    assert [id(p) for p in decayed] == [id(module[0].weight)]
    assert sum(len(group["params"]) for group in optimiser.param_groups) == 4


def test_the_rate_is_set_in_every_group() -> None:
    optimiser = build_optimiser(nn.Conv2d(1, 1, 1), TrainSection(steps=1))
    set_learning_rate(optimiser, 0.125)
    assert {group["lr"] for group in optimiser.param_groups} == {0.125}
