"""Images of a class seen more often: which, how often, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_trainer import recipe

from dropclass_deploy.core.errors import DataError, RecipeError
from dropclass_deploy.core.progress import Silent
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import train
from dropclass_deploy.training.loop.feed import image_order
from dropclass_deploy.training.loop.run_setup import set_up
from dropclass_deploy.training.recipe import ResampleOptions, parse_recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pairs, of which the last two validate; class b is in images 2 and 5, c in none."""
    path = tmp_path / "data"
    for name in ("images", "masks"):
        (path / name).mkdir(parents=True)
    for index in range(10):
        mask = np.zeros((32, 32), np.uint8)
        mask[0, 0] = index in (2, 5, 8)
        Image.fromarray(np.full((32, 32, 3), index, np.uint8)).save(path / "images" / f"{index}.png")
        Image.fromarray(mask).save(path / "masks" / f"{index}.png")
    (path / "classes.yaml").write_text("classes: [a, b, c]")
    splits = {"train": range(8), "val": (8, 9)}
    for split, indices in splits.items():
        (path / f"{split}.txt").write_text("".join(f"{index}\n" for index in indices))
    return path


def asked(folder: Path, name: str, times: int = 3):
    return recipe(
        data=f"folder:{folder}",
        method__with=["resample"],
        method__options={"resample": {"class": name, "times": times}},
    )


def test_images_of_the_class_stand_several_times_in_a_pass(folder: Path, tmp_path: Path) -> None:
    setup = set_up(asked(folder, "b"), tmp_path / "run", None, None, Silent())
    order = image_order(setup)
    data = setup.task.train
    keys = Counter(data.key(order.index(number)) for number in range(2 * 12))
    assert keys == {str(index): 6 if index in (2, 5) else 2 for index in range(8)}
    assert [(data.mask(index) == 1).any() for index in range(8)] == [index in (2, 5) for index in range(8)]


def test_an_unknown_class_is_refused_with_the_names(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"resample\.class: there is no class 'd'; expected one of a, b, c"):
        train(asked(folder, "d"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_no_image_shows_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training image shows 'c', the class of method\.options\.resample"):
        train(asked(folder, "c"), tmp_path / "run")


def test_what_a_recipe_may_say() -> None:
    given = recipe(method__with=["resample"], method__options={"resample": {"class": "pole"}})
    assert given.method.options.resample == ResampleOptions(of="pole", times=2)
    # Written under its own name and read again.
    assert "class: pole" in given.to_yaml()
    assert parse_recipe(given.model_dump(mode="json", by_alias=True)) == given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"the key method\.options\.resample\.class is missing"),
        ({"class": ""}, r"resample\.class: String should have at least 1 character"),
        ({"class": "a", "times": 1}, r"resample\.times: Input should be greater than or equal to 2"),
        ({"class": "a", "times": 101}, r"resample\.times: Input should be less than or equal to 100"),
        ({"class": "a", "times": 2.5}, r"resample\.times: Input should be a valid integer"),
        ({"class": "a", "time": 2}, r"unknown key method\.options\.resample\.time; did you mean 'times'"),
    ],
)
def test_what_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(method__with=["resample"], method__options={"resample": options})


def test_two_choices_of_images_are_refused() -> None:
    options = {"resample": {"class": "pole"}}
    with pytest.raises(RecipeError, match=r"lists rare_class_sampling and resample: both choose the images"):
        recipe(method__with=["rare_class_sampling", "resample"], method__options=options)


def test_images_without_files_are_counted_too(tmp_path: Path) -> None:
    given = recipe(method__with=["resample"], method__options={"resample": {"class": "cyclist", "times": 2}})
    order = image_order(set_up(given, tmp_path / "run", None, None, Silent()))
    data = open_dataset(given.data, "train")
    shows = {index for index in range(len(data)) if (data.mask(index) == data.classes.names.index("cyclist")).any()}
    assert 0 < len(shows) < len(data)
    shown = Counter(order.index(number) for number in range(len(data) + len(shows)))
    assert shown == {index: 2 if index in shows else 1 for index in range(len(data))}
