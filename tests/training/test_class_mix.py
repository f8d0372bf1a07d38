"""Class mixing: what leaves an image, what shows in its place, and that a batch is the same however it is loaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from test_trainer import recipe

from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data.registry import open_dataset
from dropclass_deploy.training import train
from dropclass_deploy.training.batches.class_mix import ClassMix
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.loader import training_loader
from dropclass_deploy.training.recipe import ClassMixOptions, load_recipe

DATA = "synthetic:size=32x48,train=6,val=2,unbiased=2"


def test_worked_by_hand() -> None:
    image = torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8).expand(3, 2, 3)
    other = image + 100
    mask = torch.tensor([[0, 1, 255], [1, 2, 0]], dtype=torch.uint8)
    other_mask = torch.tensor([[7, 255, 7], [8, 8, 9]], dtype=torch.uint8)
    # Draws for the classes 0, 1, 2 in this order, none for ignored pixels: found by looking, so that 0 and 2 leave.
    seed = next(s for s in range(999) if [d < 0.5 for d in _draws(s)] == [True, False, True])
    mixed, labels = ClassMix(1.0, 0.5, 255)(image, mask, other, other_mask, torch.Generator().manual_seed(seed))
    assert mixed[0].tolist() == [[101, 2, 3], [4, 105, 106]]
    assert labels.tolist() == [[7, 1, 255], [1, 8, 9]]


def _draws(seed: int) -> list[float]:
    return torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()


def test_every_pixel_keeps_its_own_label() -> None:
    # A picture that says of each pixel which image it is from and what its label is there.
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, 9, (2, 40, 50), generator=generator).to(torch.uint8)
    masks[:, :3] = 255
    images = torch.stack([torch.stack([mask, torch.full_like(mask, n), mask]) for n, mask in enumerate(masks)])
    for seed in range(20):
        draws = torch.Generator().manual_seed(seed)
        mixed, labels = ClassMix(1.0, 0.3, 255)(images[0], masks[0], images[1], masks[1], draws)
        assert torch.equal(mixed[0], labels)
        left = mixed[1].bool()
        assert not left[:3].any()
        for class_id in range(9):
            of_class = left[masks[0] == class_id]
            assert of_class.all() or not of_class.any()


def test_a_class_leaves_as_often_as_asked() -> None:
    mask = torch.arange(100, dtype=torch.uint8)[None]
    image, generator = torch.zeros(3, 1, 100), torch.Generator().manual_seed(0)
    mix = ClassMix(1.0, 0.3, 255)
    gone = sum(mix(image, mask, image + 1, mask, generator)[0][0].sum().item() for _ in range(100))
    # 10,000 draws: 3,000 ± 46 (one standard deviation).
    assert gone == pytest.approx(3000, abs=5 * 46)


def test_the_other_image_is_any_but_the_image_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = ClassMix(0.5, 0.3, 255)
    donors = Counter(mix.donor(2, 5, generator) for _ in range(8000))
    assert donors.pop(None) == pytest.approx(4000, abs=5 * 45)
    assert set(donors) == {0, 1, 3, 4}
    assert min(donors.values()) > 1000 - 5 * 30
    assert mix.donor(0, 1, generator) is None


@pytest.mark.parametrize("options", [None, ClassMixOptions(images=0), ClassMixOptions(classes=0)])
def test_nothing_to_mix_is_no_mixing(options: ClassMixOptions | None) -> None:
    assert ClassMix.from_recipe(options, 255) is None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [0, 2])
def test_batches_are_the_same_whoever_loads_them(workers: int, start: int) -> None:
    dataset = open_dataset(DATA, "train")
    section = recipe(train__steps=4, train__scale=[0.5, 2.0]).train
    mix = ClassMix(0.5, 0.3, 255)

    def batches(start: int, workers: int, *, deferred: bool = False):
        loader, _ = training_loader(
            dataset, section, Preprocess(), start=start, mix=mix, workers=workers, defer_colours=deferred
        )
        return list(loader)

    reference = batches(0, 0)[start:]
    others = batches(start, workers)
    assert len(reference) == len(others) == 4 - start
    for (images, labels, _), (same_images, same_labels, _) in zip(reference, others, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)
    assert all(
        torch.equal(one[1], two[1]) for one, two in zip(reference, batches(start, 0, deferred=True), strict=True)
    )


def test_without_mixing_a_sample_is_what_it_was() -> None:
    # The unmixed half of the images: equal to a loader without mixing, so an option that is off changes no run.
    dataset = open_dataset(DATA, "train")
    section = recipe(train__steps=4).train
    plain = list(training_loader(dataset, section, Preprocess(), start=0)[0])
    mixed = list(training_loader(dataset, section, Preprocess(), start=0, mix=ClassMix(0.5, 1.0, 255))[0])
    size = section.batch_size
    kept = [
        ClassMix(0.5, 1.0, 255).donor(0, len(dataset), generator_for(section.seed, 5, number)) is None
        for number in range(4 * size)
    ]
    same = [
        torch.equal(one, two)
        for (images, *_), (others, *_) in zip(plain, mixed, strict=True)
        for one, two in zip(images, others, strict=True)
    ]
    assert same == kept
    assert 0 < sum(kept) < len(kept)


def test_cyclists_stand_on_less_path() -> None:
    """What it is for: in the training images cyclists touch the cycle path; mixed, they do so less often."""
    dataset = open_dataset("synthetic:train=30", "train")
    cyclist, path = (dataset.classes.names.index(name) for name in ("cyclist", "cycle_path"))
    section = recipe(train__steps=20, train__crop=[96, 128], train__batch_size=4).train

    def share_on_path(mix: ClassMix | None) -> float:
        loader, _ = training_loader(dataset, section, Preprocess(), start=0, mix=mix)
        masks = torch.cat([masks for _, masks, _ in loader])
        ground = masks[:, 1:][(masks[:, :-1] == cyclist) & (masks[:, 1:] != cyclist)]
        return (ground == path).float().mean().item()

    assert share_on_path(ClassMix(1.0, 0.3, 255)) < share_on_path(None) - 0.1


def test_a_run_says_how_it_was_mixed(tmp_path: Path) -> None:
    mixing = {"method__with": ["median_frequency", "class_mix"], "method__options": {"class_mix": {"classes": 0.25}}}
    trained = recipe(train__steps=2, **mixing)
    run = train(trained, tmp_path / "run")
    assert load_recipe(run).digest() == trained.digest() != recipe(train__steps=2).digest()
    assert load_recipe(run).method.options.class_mix == ClassMixOptions(images=0.5, classes=0.25)
