"""The class weights that a recipe asks for, from the data to the loss."""

from __future__ import annotations

import numpy as np
import pytest
from test_trainer import recipe

from dropclass_deploy.core.progress import Silent
from dropclass_deploy.data.statistics import count_classes, median_frequency_weights
from dropclass_deploy.training.task import open_splits, softened, study


@pytest.mark.parametrize(
    ("power", "expected"), [(1.0, [4.0, 1.0, 0.25, 0.0]), (0.5, [2.0, 1.0, 0.5, 0.0]), (0.0, [1.0, 1.0, 1.0, 0.0])]
)
def test_weights_to_a_power(power: float, expected: list[float]) -> None:
    assert softened(np.array([4.0, 1.0, 0.25, 0.0]), power).tolist() == expected


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_a_recipe_gets_its_weights(power: float) -> None:
    asked = recipe(method__options={"median_frequency": {"power": power}})
    train, val = open_splits(asked)
    weight = study(asked, train, val, Silent()).class_weight
    assert weight is not None
    assert weight == pytest.approx(median_frequency_weights(count_classes(train)) ** power)


def test_no_component_no_weights() -> None:
    asked = recipe(method__with=[])
    train, val = open_splits(asked)
    assert study(asked, train, val, Silent()).class_weight is None
