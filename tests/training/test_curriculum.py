"""Crops that grow: their size by step, where they are cut, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from memory_data import STILL, MemoryData, batches_of
from test_trainer import recipe
from torch import nn

from dropclass_deploy.core.errors import RecipeError
from dropclass_deploy.core.progress import Silent
from dropclass_deploy.training import train
from dropclass_deploy.training.batches.class_mix import ClassMix
from dropclass_deploy.training.batches.curriculum import Curriculum
from dropclass_deploy.training.loop.feed import curriculum, largest_input
from dropclass_deploy.training.loop.run_setup import set_up
from dropclass_deploy.training.recipe import CurriculumOptions, TrainSection


def phases(*pairs: tuple[float, float], steps: int, base: tuple[int, int]) -> Curriculum:
    made = Curriculum.from_recipe(CurriculumOptions(phases=pairs), steps, base)
    assert made is not None
    return made


def test_sizes_by_hand() -> None:
    made = Curriculum.from_recipe(CurriculumOptions(), 10, (40, 60))
    assert made is not None
    # 0.4, 0.3 and 0.3 of ten steps with 0.6, 0.75 and 1.0 of the crop.
    assert [made.at(step) for step in range(10)] == [(24, 36)] * 4 + [(30, 45)] * 3 + [(40, 60)] * 3
    assert made.largest == (40, 60)
    assert Curriculum.from_recipe(None, 10, (40, 60)) is None


def test_a_side_is_rounded_and_no_smaller_than_16_or_the_base() -> None:
    assert phases((1.0, 0.33), steps=1, base=(100, 40)).at(0) == (33, 16)
    assert phases((1.0, 0.5), steps=1, base=(12, 100)).at(0) == (12, 50)


def test_a_phase_shorter_than_a_step_is_left_out() -> None:
    made = phases((0.5, 0.5), (0.01, 0.6), (0.49, 1.0), steps=10, base=(100, 100))
    assert [made.at(step) for step in range(10)] == [(50, 50)] * 5 + [(100, 100)] * 5


def test_shares_that_are_rounded_reach_the_last_step() -> None:
    made = phases((0.333, 0.5), (0.333, 0.75), (0.333, 1.0), steps=9, base=(100, 100))
    assert [made.at(step)[0] for step in range(9)] == [50] * 3 + [75] * 3 + [100] * 3


def test_crops_may_shrink_and_the_largest_is_known() -> None:
    assert phases((0.5, 0.9), (0.5, 0.4), steps=2, base=(100, 200)).largest == (90, 180)


def data(height: int, width: int) -> MemoryData:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 3, (6, height, width), generator=generator, dtype=torch.uint8)
    return MemoryData(list(masks.numpy()), "abc")


def section(**keys: object) -> TrainSection:
    content = {"steps": 6, "batch_size": 3, "flip": 0.0, "photometric": STILL}
    return TrainSection.model_validate(content | keys)


THIRDS = ((0.5, 0.5), (0.5, 1.0))


def test_without_a_crop_it_is_cut_at_scale_1_from_the_image() -> None:
    images_of = data(40, 60)
    found, _ = batches_of(images_of, section(), curriculum=phases(*THIRDS, steps=6, base=(40, 60)))
    assert [tuple(images.shape) for images, _ in found] == [(3, 3, 20, 30)] * 3 + [(3, 3, 40, 60)] * 3
    corners = set()
    for images, labels in found:
        for image, label in zip(images, labels, strict=True):
            index, top, left = image[:, 0, 0].tolist()
            height, width = label.shape
            # Every pixel names its own row and column: nothing was scaled, image and mask are cut alike.
            assert torch.equal(image[1], torch.arange(top, top + height)[:, None].expand(-1, width).byte())
            assert torch.equal(image[2], torch.arange(left, left + width).expand(height, -1).byte())
            expected = images_of.mask(index)[top : top + height, left : left + width]
            assert torch.equal(label, torch.from_numpy(expected))
            corners.add((top, left))
    assert len(corners) > 4


def test_with_a_crop_it_is_scaled_as_ever() -> None:
    train = section(crop=[40, 40], scale=[0.5, 0.5])
    found, _ = batches_of(data(100, 100), train, curriculum=phases(*THIRDS, steps=6, base=(40, 40)))
    assert [tuple(labels.shape[1:]) for _, labels in found] == [(20, 20)] * 3 + [(40, 40)] * 3
    # At scale ½ neighbouring pixels of the crop are two rows of the image apart.
    assert all((images[:, 1, 1:, 0].int() - images[:, 1, :-1, 0].int() - 2).abs().max() <= 1 for images, _ in found)


def test_at_the_full_size_nothing_changes() -> None:
    train = section(crop=[32, 32], scale=[0.5, 2.0], flip=0.5)
    whole, _ = batches_of(data(40, 60), train)
    grown, _ = batches_of(data(40, 60), train, curriculum=phases((0.5, 0.7), (0.5, 1.0), steps=6, base=(32, 32)))
    assert all(
        torch.equal(a, b) for one, two in zip(whole[3:], grown[3:], strict=True) for a, b in zip(one, two, strict=True)
    )
    assert grown[0][0].shape[-1] == 22


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("crop", [None, [32, 32]])
def test_batches_are_the_same_whoever_loads_them_and_mixed_at_the_step_s_size(
    workers: int, crop: list[int] | None
) -> None:
    train = section() if crop is None else section(crop=crop, scale=[1, 1])
    images_of = data(40, 60)
    keys = {
        "curriculum": phases(*THIRDS, steps=6, base=(40, 60) if crop is None else (32, 32)),
        "mix": ClassMix(1.0, 0.5, 255),
    }
    reference, items = batches_of(images_of, train, **keys)
    mixed = 0
    for (images, labels), batch in zip(reference, items, strict=True):
        for image, label, (index, _) in zip(images, labels, batch, strict=True):
            # Every pixel says which image it is from and where: it has the label that it has there.
            every = zip(*(channel.flatten().tolist() for channel in image), strict=True)
            assert label.flatten().tolist() == [images_of.mask(of)[row, column] for of, row, column in every]
            mixed += int((image[0] != index).any())
    # A sample stays as it is when none of three classes leaves: one of eight.
    assert mixed > 9
    resumed, _ = batches_of(images_of, train, start=2, workers=workers, **keys)
    for one, two in zip(reference[2:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("crop", "base"), [([24, 32], (24, 32)), (None, (32, 48))])
def test_a_recipe_s_fractions_are_of_its_crop_or_its_images(
    crop: list[int] | None, base: tuple[int, int], tmp_path
) -> None:
    given = recipe(
        train__crop=crop,
        method__with=["curriculum"],
        method__options={"curriculum": {"phases": [[0.5, 0.75], [0.5, 0.9]]}},
    )
    setup = set_up(given, tmp_path / "run", None, None, Silent())
    made = curriculum(setup)
    assert made is not None
    assert made.sizes == tuple((round(base[0] * part), round(base[1] * part)) for part in (0.75, 0.9))
    assert largest_input(setup) == made.largest == made.sizes[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"curriculum\.phases: Tuple should have at least 1 item"),
        ([[0.5, 0.5], [0.4, 1.0]], r"the shares of the phases, the first number of each, sum to 0\.9, not to 1"),
        ([[0.5, 0.5], [0.6, 1.0]], r"sum to 1\.1, not to 1"),
        ([[1.0, 0.0]], r"phases\.0\.1: Input should be greater than 0"),
        ([[1.0, 1.5]], r"phases\.0\.1: Input should be less than or equal to 1"),
        ([[-0.5, 0.5], [1.5, 1.0]], r"phases\.0\.0: Input should be greater than 0"),
        ([[1.0]], r"phases\.0\.1"),
        ([[1.0, 0.5, 0.5]], r"phases\.0: Tuple should have at most 2 items"),
    ],
)
def test_what_is_refused(given: list[list[float]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(method__with=["curriculum"], method__options={"curriculum": {"phases": given}})


class OfSixteens(nn.Module):
    """Takes images whose sides are multiples of 16, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 12, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] % 16:
            raise RuntimeError(f"wrong input shape {tuple(images.shape)}")
        return self.head(images)


def test_a_phase_that_the_network_cannot_take_is_said_before_the_first_step(tmp_path: Path) -> None:
    phases = {"phases": [[0.5, 1.0], [0.5, 0.55]]}
    asked = recipe(method={"name": "ce", "with": ["curriculum"], "options": {"curriculum": phases}})
    with pytest.raises(RecipeError, match=r"phase 2 of method\.options\.curriculum has crops of 18×18, which the"):
        train(asked, tmp_path / "run", model=OfSixteens())
    assert not (tmp_path / "run").exists()
