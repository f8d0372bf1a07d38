"""Schedules and the draw of z."""

from collections import Counter

import pytest
import torch

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.dropclass import linear, sample_dropped


def draws(count: int, probability: float, classes: int = 7, **options) -> list[int | None]:
    generator = torch.Generator().manual_seed(0)
    return [sample_dropped(classes, probability, generator, **options) for _ in range(count)]


@pytest.mark.parametrize(
    ("progress", "maximum", "expected"), [(0.0, 1.0, 0.0), (0.25, 1.0, 0.25), (1.0, 1.0, 1.0), (0.5, 0.3, 0.15)]
)
def test_linear(progress: float, maximum: float, expected: float):
    assert linear(progress, maximum) == expected


@pytest.mark.parametrize("progress", [-1e-9, 1.0000001, float("nan"), float("inf")])
def test_progress_outside_0_to_1_is_refused(progress: float):
    with pytest.raises(UserError, match=r"the training progress is .*; expected a number from 0 to 1"):
        linear(progress)


def test_classes_are_uniform():
    counts = Counter(draws(7000, 1.0))
    assert set(counts) == set(range(7))
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    # 99.9 % quantile of chi-square with 6 degrees of freedom; the seed is fixed, so this does not flicker.
    assert chi_square < 22.46


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_a_class_is_dropped_with_the_given_probability(probability: float):
    dropped = sum(z is not None for z in draws(4000, probability))
    # Four standard deviations of the binomial; the seed is fixed.
    assert abs(dropped / 4000 - probability) < 4 * (probability * (1 - probability) / 4000) ** 0.5


def test_which_class_does_not_depend_on_whether_one_is_dropped():
    often, seldom = draws(500, 1.0), draws(500, 0.3)
    assert all(rare in (None, common) for rare, common in zip(seldom, often, strict=True))


def test_never_at_0_and_always_at_1():
    assert set(draws(200, 0.0)) == {None}
    assert None not in draws(200, 1.0)


def test_among_draws_uniformly_from_the_classes_that_occur():
    labels = torch.tensor([[0, 2, 255, 255], [2, 2, 6, 2]], dtype=torch.uint8)
    counts = Counter(draws(3000, 1.0, among=labels))
    assert set(counts) == {0, 2, 6}
    # 99.9 % quantile of chi-square with 2 degrees of freedom: how many pixels a class has does not count.
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 13.82


@pytest.mark.parametrize("labels", [torch.full((2, 2), 255), torch.zeros(0, 2, 2), torch.tensor([7, 100, -1])])
def test_among_labels_without_a_class_drops_nothing(labels: torch.Tensor):
    assert set(draws(20, 1.0, among=labels)) == {None}
