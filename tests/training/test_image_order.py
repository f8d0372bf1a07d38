"""Which image a sample shows: pass after pass as ever, and passes in which some images stand several times."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from memory_data import STILL, MemoryData, batches_of

from dropclass_deploy.training.batches.draws import generator_for
from dropclass_deploy.training.batches.order import Passes, repeated
from dropclass_deploy.training.recipe import TrainSection


def stream(count: int, seed: int) -> Iterator[int]:
    """What runs have shown since the first version: an order drawn for every pass, played from the start."""
    for epoch in itertools.count():
        yield from torch.randperm(count, generator=generator_for(seed, 1, epoch)).tolist()


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (7, 4), (50, 2**31 - 1)])
def test_an_order_without_options_is_the_order_of_old(count: int, seed: int) -> None:
    order = Passes(range(count), seed)
    expected = list(itertools.islice(stream(count, seed), 200))
    assert [order.index(number) for number in range(200)] == expected
    # In any order it is asked, as a resumed run does.
    assert [order.index(number) for number in reversed(range(200))] == expected[::-1]
    assert order.focus(3) is None


def test_a_loader_without_an_order_shows_the_images_of_old() -> None:
    data = MemoryData([np.zeros((8, 8), np.uint8)] * 7, "ab")
    train = TrainSection.model_validate({"steps": 9, "batch_size": 3, "crop": [4, 4], "seed": 5, "photometric": STILL})
    batches, items = batches_of(data, train)
    shown = [int(image[0, 0, 0]) for images, _ in batches for image in images]
    assert shown == list(itertools.islice(stream(7, 5), 27))
    assert [index for batch in items for index, _ in batch] == shown


def test_repeated_by_hand() -> None:
    assert repeated(np.array([False, True, False, True]), 3) == [0, 1, 1, 1, 2, 3, 3, 3]


def test_every_pass_shows_repeated_images_as_often_as_asked() -> None:
    order = Passes(repeated(np.array([True, False, False]), 4), seed=1)
    passes = [[order.index(number) for number in range(start, start + 6)] for start in range(0, 60, 6)]
    assert all(Counter(shown) == {0: 4, 1: 1, 2: 1} for shown in passes)
    assert len({tuple(shown) for shown in passes}) > 1
