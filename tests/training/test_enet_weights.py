"""ENet's class weights: by hand, bounded, and asked for by a recipe."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from test_trainer import recipe

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.core.progress import Silent
from dropclass_deploy.data.statistics import ClassStatistics, count_classes, enet_weights
from dropclass_deploy.training.recipe import EnetWeightsOptions
from dropclass_deploy.training.task import open_splits, study


def statistics(*images: list[int]) -> ClassStatistics:
    return ClassStatistics.of(np.array(images, dtype=np.uint32))


def test_worked_by_hand() -> None:
    # Of 10 labelled pixels 6, 3, 1 and none: 1/ln(1.02 + share).
    weights = enet_weights(statistics([4, 3, 0, 0], [2, 0, 1, 0]), 1.02)
    expected = [1 / math.log(1.62), 1 / math.log(1.32), 1 / math.log(1.12), 0.0]
    # A sum, a logarithm and a division of float64.
    np.testing.assert_allclose(weights, expected, rtol=1e-14)
    # ln 1.62 = 0.482426.
    assert weights[0] == pytest.approx(1 / 0.482426, rel=2e-6)


def test_the_weights_lie_between_their_bounds() -> None:
    weights = enet_weights(statistics([10**9, 1, 0]), 1.02)
    # 1/ln 2.02 = 1.422 for a class that is everywhere, 1/ln 1.02 = 50.498 for one that is hardly there.
    assert weights == pytest.approx([1.4222, 50.498, 0.0], rel=1e-4)


def test_no_labelled_pixel_gives_zero_weights_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert enet_weights(statistics([0, 0]), 1.02).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"c": 1.5}])
def test_a_recipe_gets_its_weights(options: dict[str, float]) -> None:
    asked = recipe(method__with=["enet_weights"], method__options={"enet_weights": options})
    train, val = open_splits(asked)
    weight = study(asked, train, val, Silent()).class_weight
    assert weight is not None
    # The same function on the same counts.
    np.testing.assert_array_equal(weight, enet_weights(count_classes(train), options.get("c", 1.02)))
    assert asked.method.options.enet_weights == EnetWeightsOptions(**options)


def test_two_class_weightings_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"lists median_frequency and enet_weights: both set the class weights"):
        recipe(method__with=["enet_weights", "median_frequency"])


@pytest.mark.parametrize("c", [1.0, 0.5, "much"])
def test_c_must_be_above_one(c: object) -> None:
    with pytest.raises(RecipeError, match=r"method\.options\.enet_weights\.c: Input should be"):
        recipe(method__with=["enet_weights"], method__options={"enet_weights": {"c": c}})
