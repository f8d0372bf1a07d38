from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from dropclass_deploy.serving import logits_resize
from dropclass_deploy.serving.logits_resize import argmax_of_classes, logits_to_mask

SIZES = [
    ((16, 32), (64, 128)),
    ((7, 5), (33, 41)),
    ((9, 9), (9, 20)),
    ((40, 30), (13, 7)),
    ((1, 1), (5, 6)),
    ((2, 3), (1, 1)),
]


def torch_logits(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    planes = torch.from_numpy(logits.astype(np.float64))[None]
    return interpolate(planes, size=size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_equals_torch_bilinear_and_argmax(source: tuple[int, int], target: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).normal(size=(6, *source)).astype(np.float32)
    exact = torch_logits(logits, target)
    mask = logits_to_mask(logits, target)
    top = exact.topk(2, dim=0).values
    # Float32 rounding of three blends of values below 5 stays under 5e-6: only nearer ties may fall the other way.
    clear = (top[0] - top[1] > 5e-6).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(mask[clear], exact.argmax(0).numpy()[clear])
    assert mask.dtype == np.uint8


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_interpolated_values_equal_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).normal(size=(3, *source)).astype(np.float32)
    rows, columns = logits_resize._axis(source[0], target[0]), logits_resize._axis(source[1], target[1])
    found = logits_resize._strip(logits, rows, columns, slice(0, target[0]))
    # Values below 5, three float32 blends: some units of 2**-24 each.
    np.testing.assert_allclose(found, torch_logits(logits, target).numpy(), atol=2e-6, rtol=0)


def test_strips_do_not_change_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(2).normal(size=(5, 11, 13)).astype(np.float32)
    whole = logits_to_mask(logits, (57, 40))
    monkeypatch.setattr(logits_resize, "STRIP_BYTES", 1)
    np.testing.assert_array_equal(logits_to_mask(logits, (57, 40)), whole)


def test_one_row_by_hand() -> None:
    # Two pixels, 0 against 4 for class 1 and constant 1.5 for class 0, enlarged to four: class 1 becomes 0, 1, 3, 4.
    logits = np.array([[[1.5, 1.5]], [[0.0, 4.0]]], dtype=np.float32)
    np.testing.assert_array_equal(logits_to_mask(logits, (1, 4)), [[0, 0, 1, 1]])


def test_ties_go_to_the_lowest_id() -> None:
    assert logits_to_mask(np.zeros((4, 2, 2), dtype=np.float32), (5, 5)).max() == 0
    tied = np.array([0.0, 2.0, 2.0], dtype=np.float32).reshape(3, 1, 1)
    assert logits_to_mask(tied, (3, 3)).tolist() == [[1, 1, 1]] * 3


def test_argmax_equals_numpy() -> None:
    logits = np.random.default_rng(3).integers(-3, 3, size=(255, 9, 8)).astype(np.float32)
    np.testing.assert_array_equal(argmax_of_classes(logits), logits.argmax(0))


def test_input_is_not_changed() -> None:
    logits = np.random.default_rng(4).normal(size=(3, 4, 4)).astype(np.float32)
    before = logits.copy()
    logits_to_mask(logits, (4, 4))
    logits_to_mask(logits, (9, 9))
    np.testing.assert_array_equal(logits, before)


def test_infinite_logits_give_a_mask_without_a_warning() -> None:
    logits = np.zeros((2, 2, 2), dtype=np.float32)
    logits[1] = np.inf
    assert logits_to_mask(logits, (4, 4)).shape == (4, 4)
