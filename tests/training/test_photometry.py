"""Colours changed in the workers or on the device: the same draws, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_trainer import recipe
from torchvision.transforms.v2 import functional as V

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import train
from dropclass_deploy.training.batches.augment import Augment
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.loader import training_loader
from dropclass_deploy.training.batches.photometry import change_batch, draw_change, is_deferred
from dropclass_deploy.training.recipe import Photometric

STRONG = Photometric(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3)


def test_the_draws_follow_the_flip_in_a_fixed_order() -> None:
    image, mask = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)
    *_, change = Augment(None, (1, 1), 0.5, STRONG, 255, (0.0, 0.0, 0.0)).geometry(image, mask, generator_for(3, 2, 7))
    numbers = torch.rand(5, generator=generator_for(3, 2, 7), dtype=torch.float64).tolist()
    assert change == pytest.approx([0.5 + numbers[1], 0.5 + numbers[2], 0.5 + numbers[3], -0.3 + 0.6 * numbers[4]])


def test_an_option_that_is_off_does_not_shift_the_others() -> None:
    some = Photometric(brightness=0.5, contrast=0, saturation=0.5, hue=0)
    all_on, some_on = (draw_change(limits, generator_for(0, 2, 1)) for limits in (STRONG, some))
    assert (some_on[0], some_on[2]) == (all_on[0], all_on[2])
    assert (some_on[1], some_on[3]) == (1.0, 0.0)


def test_a_batch_is_changed_as_torchvision_changes_each_image() -> None:
    images = torch.randint(0, 256, (3, 3, 9, 11), dtype=torch.uint8)
    changes = tuple(draw_change(STRONG, generator_for(1, 2, number)) for number in range(3))
    for image, (brightness, contrast, saturation, hue), ours in zip(
        images, changes, change_batch(images, STRONG, changes), strict=True
    ):
        expected = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(image, brightness), contrast), saturation)
        assert torch.equal(ours, V.adjust_hue(expected, hue))
    assert change_batch(images, STRONG, ()) is images


@pytest.mark.parametrize("workers", [0, 1])
def test_deferred_colours_give_the_bytes_that_the_workers_give(workers: int) -> None:
    dataset = open_dataset("synthetic:size=32x48,train=6,val=2,unbiased=2", "train")
    section = recipe(train__photometric=STRONG.model_dump(), train__steps=3, train__scale=[0.5, 2.0]).train
    made, left = (
        list(training_loader(dataset, section, Preprocess(), start=0, workers=workers, defer_colours=on)[0])
        for on in (False, True)
    )
    assert len(made) == len(left) == 3
    for (images, labels, none), (raw, same_labels, changes) in zip(made, left, strict=True):
        assert none == ()
        assert len(changes) == len(raw)
        assert not torch.equal(raw, images)
        assert torch.equal(change_batch(raw, STRONG, changes), images)
        assert torch.equal(labels, same_labels)


@pytest.mark.slow
def test_a_run_with_colours_changed_on_the_device_is_the_same_run(tmp_path: Path) -> None:
    runs = [train(recipe(train__augment_on=place, train__steps=3), tmp_path / place) for place in ("cpu", "device")]
    one, other = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("place", "device", "size", "deferred"),
    [
        ("auto", "cpu", (1024, 2048), False),
        ("auto", "cuda", (255, 512), False),
        ("auto", "cuda", (256, 512), True),
        ("cpu", "cuda", (1024, 2048), False),
        ("device", "cpu", (32, 32), True),
    ],
)
def test_where_colours_are_changed(place: str, device: str, size: tuple[int, int], deferred: bool) -> None:
    assert is_deferred(recipe(train__augment_on=place).train, torch.device(device), size) is deferred


def test_without_a_change_nothing_is_deferred() -> None:
    still: dict[str, Any] = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    section = recipe(train__augment_on="device", train__photometric=still).train
    assert not is_deferred(section, torch.device("cuda"), (1024, 2048))


def test_the_place_has_no_say_in_what_run_it_is() -> None:
    assert recipe(train__augment_on="device").digest() == recipe(train__augment_on="cpu").digest()
