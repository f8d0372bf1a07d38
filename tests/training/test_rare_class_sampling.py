"""Rare class sampling: how often a class is drawn, from which images, and that the crop shows it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from memory_data import STILL, MemoryData, batches_of
from scipy.stats import chisquare
from test_trainer import recipe

from dropclass_deploy.core.errors import DataError, RecipeError
from dropclass_deploy.training.batches.class_mix import ClassMix
from dropclass_deploy.training.batches.curriculum import Curriculum
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.focus import Focus, enough
from dropclass_deploy.training.batches.rare_classes import RareClasses, class_probabilities
from dropclass_deploy.training.batches.windows import centred_corner, random_corner
from dropclass_deploy.training.recipe import CurriculumOptions, RareClassSamplingOptions, TrainSection


def table(*images: list[int]) -> np.ndarray:
    return np.array(images, dtype=np.uint32)


def test_probabilities_by_hand() -> None:
    # Shares ¾, ¼ and none with T = ½: e^(¼ ÷ ½), e^(¾ ÷ ½), and a class that cannot be drawn.
    weights = [math.exp(0.5), math.exp(1.5), 0.0]
    found = class_probabilities(np.array([75, 25, 0]), 0.5)
    # Float64: an exponential, a sum and a division.
    assert found.tolist() == pytest.approx([weight / sum(weights) for weight in weights], rel=1e-14)


@pytest.mark.parametrize(("temperature", "expected"), [(1e-300, [0.0, 1.0]), (1e300, [0.5, 0.5])])
def test_no_temperature_is_too_low_or_too_high(temperature: float, expected: list[float]) -> None:
    assert class_probabilities(np.array([75, 25]), temperature).tolist() == expected


def test_nothing_labelled_is_refused() -> None:
    with pytest.raises(DataError, match=r"no training image holds a labelled pixel"):
        RareClasses(table([0, 0], [0, 0]), RareClassSamplingOptions(), (8, 8), 0)


def drawn(by_image: np.ndarray, seed: int, **options: object) -> list[tuple[int, int]]:
    order = RareClasses(by_image, RareClassSamplingOptions.model_validate(options), (8, 8), seed)
    return [(order.index(number), order.focus(number).class_id) for number in range(3000)]


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_and_images_are_drawn_as_often_as_the_formula_says(seed: int) -> None:
    by_image = table([50, 5, 0, 0], [40, 9, 3, 0], [60, 20, 0, 0], [10, 0, 6, 0])
    pairs = drawn(by_image, seed, temperature=0.3, min_pixels=5)
    share = by_image.sum(0) / by_image.sum()
    weights = np.exp((1 - share[:3]) / 0.3)
    classes = Counter(class_id for _, class_id in pairs)
    assert set(classes) == {0, 1, 2}
    # A seed is a seed: below one in ten thousand, an honest draw would have been unlucky.
    observed = [classes[class_id] for class_id in range(3)]
    assert chisquare(observed, 3000 * weights / weights.sum()).pvalue > 1e-4
    images = Counter(index for index, class_id in pairs if class_id == 1)
    assert set(images) == {0, 1, 2}
    assert chisquare(list(images.values())).pvalue > 1e-4
    # Only the last image has five pixels of class 2.
    assert {index for index, class_id in pairs if class_id == 2} == {3}


def test_where_no_image_has_enough_the_fuller_half_is_drawn_from() -> None:
    order = RareClasses(
        table([9, 1], [9, 4], [9, 0], [9, 2], [9, 3]), RareClassSamplingOptions(min_pixels=5), (8, 8), 0
    )
    # Of 1, 4, 2 and 3 pixels the median is 2.5.
    assert order.images[1].tolist() == [1, 4]
    assert order.images[0].tolist() == [0, 1, 2, 3, 4]


def test_a_single_image_is_enough() -> None:
    assert set(drawn(table([4, 0], [0, 1]), 0, temperature=1.0)) == {(0, 0), (1, 1)}


def test_the_default_minimum_is_a_200th_of_the_picture() -> None:
    assert enough(None, (512, 1024)) == 2621
    assert enough(None, (4, 4)) == 1
    assert enough(7, (512, 1024)) == 7


def test_centred_by_hand() -> None:
    size = torch.Size((10, 20))
    assert centred_corner(size, (4, 6), (5, 10)) == (3, 7)
    # At the border the window stays inside; an image smaller than the window stays inside the window.
    assert centred_corner(size, (4, 6), (0, 19)) == (0, 14)
    assert centred_corner(size, (30, 6), (9, 2)) == (-6, 0)
    assert centred_corner(size, (30, 6), (0, 2)) == (-15, 0)


def shown(mask: torch.Tensor, corner: tuple[int, int], window: tuple[int, int]) -> int:
    """Pixels of class 1 in a window, one by one."""
    return sum(
        int(mask[row, column] == 1)
        for row in range(max(0, corner[0]), min(len(mask), corner[0] + window[0]))
        for column in range(max(0, corner[1]), min(mask.shape[1], corner[1] + window[1]))
    )


@pytest.mark.parametrize("crops", [1, 2, 10])
@pytest.mark.parametrize("window", [(8, 12), (20, 6), (30, 40)])
def test_the_first_window_that_shows_enough_is_taken(crops: int, window: tuple[int, int]) -> None:
    crop, min_pixels = (8, 12), 12
    for seed in range(12):
        made = torch.Generator().manual_seed(seed)
        mask = (torch.rand(24, 30, generator=made) < 0.02 * seed).to(torch.uint8)
        first = random_corner(mask.shape, window, generator_for(seed, 2, 0))
        found = Focus(1, min_pixels, crops, generator_for(seed, 6, 0)).corner(mask, first, window, crop)
        total = int(mask.sum())
        if total == 0:
            assert found == first
            continue
        draws = generator_for(seed, 6, 0)
        tried = [first, *(random_corner(mask.shape, window, draws) for _ in range(crops - 2))][: crops - 1]
        needed = min(total, min_pixels * window[0] * window[1] / (crop[0] * crop[1]))
        full = [corner for corner in tried if shown(mask, corner, window) >= needed]
        if full:
            assert found == full[0]
            continue
        assert shown(mask, found, window) >= max([1, *(shown(mask, corner, window) for corner in tried)])
        assert crops > 1 or found in {
            centred_corner(mask.shape, window, pixel) for pixel in map(tuple, mask.nonzero().tolist())
        }


def blobs(count: int = 12) -> MemoryData:
    """64×64 of class 0 with one object of 6×6 pixels, of class 1 in every fourth image, else of class 2."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, 64, 64), np.uint8)
    for index, mask in enumerate(masks):
        row, column = rng.integers(0, 58, 2)
        mask[row : row + 6, column : column + 6] = 1 if index % 4 == 0 else 2
    return MemoryData(list(masks), "abc")


def order_for(data: MemoryData, **options: object) -> RareClasses:
    by_image = np.array([np.bincount(data.mask(index).ravel(), minlength=3) for index in range(len(data))], np.uint32)
    return RareClasses(by_image, RareClassSamplingOptions.model_validate(options), (16, 16), 3)


def section(**keys: object) -> TrainSection:
    content = {"steps": 8, "batch_size": 3, "crop": [16, 16], "scale": [1, 1], "photometric": STILL, "seed": 3}
    return TrainSection.model_validate(content | keys)


@pytest.mark.parametrize("crops", [1, 4])
def test_crops_show_the_class_that_they_were_drawn_for(crops: int) -> None:
    data = blobs()
    order = order_for(data, crops=crops, min_pixels=36)
    found, items = batches_of(data, section(), order=order)
    classes = Counter()
    for (images, labels), batch in zip(found, items, strict=True):
        for image, label, (index, number) in zip(images, labels, batch, strict=True):
            assert int(image[0, 0, 0]) == index == order.index(number)
            class_id = order.focus(number).class_id
            classes[class_id] += 1
            # An object of 6×6 fits into a window that has one of its pixels in the middle: all of it shows.
            assert int((label == class_id).sum()) >= 36
    assert min(classes[1], classes[2]) > 0


def test_without_it_most_crops_miss_the_object() -> None:
    found, _ = batches_of(blobs(), section())
    assert sum(bool(label.any()) for _, labels in found for label in labels) < 16


def test_a_scaled_crop_shows_the_minimum_at_its_own_scale() -> None:
    data = blobs()
    order = order_for(data, min_pixels=50)
    found, items = batches_of(data, section(scale=[1.2, 1.2]), order=order)
    for (_, labels), batch in zip(found, items, strict=True):
        for label, (_, number) in zip(labels, batch, strict=True):
            class_id = order.focus(number).class_id
            # 36 pixels are 36 · (16 ÷ 13)² = 54 here, five of six rows too few; nearest neighbour makes 7 or 8 rows of six.
            assert int((label == class_id).sum()) >= 49


def test_flip_and_colours_are_those_of_a_run_without_it() -> None:
    # One image, all of one class: the first window will do, and nothing else may have moved.
    data = MemoryData([np.zeros((40, 40), np.uint8)], "ab")
    train = section(scale=[0.5, 2.0], photometric={})
    order = RareClasses(table([1600, 0]), RareClassSamplingOptions(min_pixels=1), (16, 16), 3)
    for one, two in zip(batches_of(data, train)[0], batches_of(data, train, order=order)[0], strict=True):
        assert torch.equal(one[0], two[0])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_batches_are_the_same_whoever_loads_them(workers: int, start: int) -> None:
    """With everything else that it goes together with."""
    data = blobs()
    keys = {
        "curriculum": Curriculum.from_recipe(CurriculumOptions(), 8, (32, 32)),
        "mix": ClassMix(0.5, 0.5, 255),
    }
    train = section(crop=[32, 32], scale=[0.5, 2.0], photometric={})
    reference, _ = batches_of(data, train, order=order_for(data), **keys)
    others, _ = batches_of(data, train, start, order=order_for(data), workers=workers, **keys)
    assert len(others) == 8 - start
    for one, two in zip(reference[start:], others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_without_a_crop_only_the_images_are_chosen() -> None:
    data = blobs()
    order = order_for(data)
    found, items = batches_of(data, section(crop=None, scale=[0.75, 1.5], flip=0.0), order=order)
    for (_, labels), batch in zip(found, items, strict=True):
        for label, (index, _) in zip(labels, batch, strict=True):
            assert torch.equal(label, torch.from_numpy(data.mask(index)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, r"temperature: Input should be greater than 0"),
        ({"min_pixels": 0}, r"min_pixels: Input should be greater than or equal to 1"),
        ({"crops": 0}, r"crops: Input should be greater than or equal to 1"),
        ({"crops": 10**6}, r"crops: Input should be less than or equal to 1000"),
    ],
)
def test_what_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(method__with=["rare_class_sampling"], method__options={"rare_class_sampling": options})
