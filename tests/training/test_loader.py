"""Batches are determined by (seed, step); augmentation keeps masks whole and moves them with their image."""

from __future__ import annotations

import collections
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.training.batches.augment import Augment, normalise, resize_pair
from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.loader import StepBatches, collate
from dropclass_deploy.training.batches.order import Passes
from dropclass_deploy.training.batches.photometry import change_colours
from dropclass_deploy.training.recipe import Photometric

STILL = Photometric(brightness=0, contrast=0, saturation=0, hue=0)


def augment(
    crop: tuple[int, int] | None, scale: tuple[float, float] = (1, 1), flip: float = 0, photometric: Photometric = STILL
) -> Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]:
    made = Augment(crop, scale, flip, photometric, 255, (10.0, 20.0, 30.0))

    def augmented(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        image, mask, change = made.geometry(image, mask, generator)
        return change_colours(image, photometric, change), mask

    return augmented


def test_batches_from_a_later_step_are_the_tail_of_the_whole_run() -> None:
    whole = list(StepBatches(Passes(range(7), 4), 3, steps=10))
    assert list(StepBatches(Passes(range(7), 4), 3, steps=10, start=6)) == whole[6:]


def test_every_pass_shows_every_image_once() -> None:
    items = [item for batch in StepBatches(Passes(range(7), 0), 3, steps=14) for item in batch]
    assert [number for _, number in items] == list(range(42))
    for start in range(0, 42, 7):
        assert sorted(index for index, _ in items[start : start + 7]) == list(range(7))


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    def first_pass(seed: int) -> list[int]:
        return [i for b in StepBatches(Passes(range(50), seed), 10, steps=5) for i, _ in b]

    second = [i for b in list(StepBatches(Passes(range(50), 0), 10, steps=10))[5:] for i, _ in b]
    assert first_pass(0) != first_pass(1)
    assert first_pass(0) != second


def test_neighbouring_generators_do_not_repeat_each_other() -> None:
    draws = [
        torch.rand((), generator=generator_for(s, t, n)).item() for s in range(4) for t in range(4) for n in range(40)
    ]
    assert len(set(draws)) == len(draws)
    # 640 uniform numbers: the mean's standard deviation is 0.0114, so 0.05 is more than four of them.
    assert abs(np.mean(draws) - 0.5) < 0.05


def test_without_changes_the_pair_comes_out_as_it_went_in() -> None:
    image = torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8)
    mask = torch.randint(0, 5, (6, 8), dtype=torch.uint8)
    out, ids = augment(None)(image, mask, generator_for(0, 2, 0))
    assert torch.equal(out, image)
    assert torch.equal(ids, mask)


def test_image_and_mask_move_together() -> None:
    # The mask is the image's red channel in steps of 16, so any shift between the two would show.
    ramp = (torch.arange(64).repeat(48, 1) // 4 * 16).to(torch.uint8)
    image, mask = ramp.expand(3, -1, -1).clone(), (ramp // 16).clone()
    for number in range(20):
        out, ids = augment((16, 16), scale=(1, 1), flip=0.5)(image, mask, generator_for(1, 2, number))
        assert torch.equal(out[0] // 16, ids)


def test_masks_are_never_interpolated() -> None:
    mask = torch.zeros(20, 20, dtype=torch.uint8)
    mask[5:15, 5:15] = 200
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    for number in range(20):
        _, ids = augment((13, 17), scale=(0.4, 2.5))(image, mask, generator_for(2, 2, number))
        assert set(ids.unique().tolist()) <= {0, 200, 255}
        assert ids.shape == (13, 17)


def test_what_lies_beyond_the_image_is_mean_colour_and_ignored() -> None:
    image = torch.full((3, 4, 4), 99, dtype=torch.uint8)
    mask = torch.ones(4, 4, dtype=torch.uint8)
    out, ids = augment((8, 8))(image, mask, generator_for(0, 2, 3))
    outside = ids == 255
    assert int(outside.sum()) == 48
    assert out[:, outside].unique(dim=1).flatten().tolist() == [10, 20, 30]
    assert (out[:, ~outside] == 99).all()


def test_flip_probability_is_honoured() -> None:
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    mask = torch.tensor([[0, 1], [0, 1]], dtype=torch.uint8)
    count = collections.Counter(
        int(augment(None, flip=0.25)(image, mask, generator_for(5, 2, number))[1][0, 0]) for number in range(2000)
    )
    # Binomial(2000, 0.25): standard deviation 0.0097; 0.04 is four of them.
    assert abs(count[1] / 2000 - 0.25) < 0.04


def test_photometric_changes_colours_only() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    mask = torch.randint(0, 5, (8, 8), dtype=torch.uint8)
    out, ids = augment(None, photometric=Photometric())(image, mask, generator_for(0, 2, 1))
    assert out.dtype == torch.uint8
    assert not torch.equal(out, image)
    assert torch.equal(ids, mask)


def test_equal_generators_give_equal_pairs() -> None:
    image = torch.randint(0, 256, (3, 30, 30), dtype=torch.uint8)
    mask = torch.randint(0, 5, (30, 30), dtype=torch.uint8)
    make = augment((16, 16), (0.5, 2), 0.5, Photometric())
    first, second = (make(image, mask, generator_for(3, 2, 9)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_the_loop_normalises_as_the_specification_does() -> None:
    spec = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    scale, shift = (torch.from_numpy(value) for value in spec.scale_and_shift())
    ours = normalise(torch.from_numpy(images).permute(0, 3, 1, 2), scale, shift)
    # The same float32 multiplication and addition; a fused multiply-add may differ in the last bit of numbers up to 10.
    assert np.allclose(ours.numpy(), spec.normalise(images), rtol=0, atol=2e-6)


def test_a_fixed_size_resizes_both() -> None:
    image, mask = resize_pair(torch.zeros(3, 9, 7, dtype=torch.uint8), torch.ones(9, 7, dtype=torch.uint8), (4, 6))
    assert image.shape == (3, 4, 6)
    assert mask.shape == (4, 6)
    assert mask.unique().tolist() == [1]


def test_images_of_two_sizes_in_one_batch_are_refused() -> None:
    def pair(side: int) -> tuple[torch.Tensor, torch.Tensor, tuple[()]]:
        return torch.zeros(3, side, side), torch.zeros(side, side), ()

    # An error comes out like a batch: raised in a worker process, it would arrive with that process's traceback.
    refused = collate([pair(4), pair(5)])
    assert isinstance(refused, DataError)
    assert "sizes [(4, 4), (5, 5)]" in str(refused)
    assert "train.crop" in str(refused)
