"""Dropout by fewer random numbers."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from dropclass_deploy.training.methods.dropout import dropout


def features(layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(3, 32, 30, 41, generator=generator) + 1).contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_a_value_is_dropped_at_the_rate_or_scaled(rate: float, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    given = features(layout)
    found = dropout(given, rate)
    kept = found != 0
    torch.testing.assert_close(found[kept], given[kept] / (1 - rate))
    assert found.is_contiguous(memory_format=layout)
    dropped = int((~kept).sum())
    assert stats.binomtest(dropped, kept.numel(), rate).pvalue > 1e-3


def test_values_are_dropped_independently_of_each_other() -> None:
    """Four neighbours share a draw: they, and those of the next, must tell nothing of each other."""
    torch.manual_seed(1)
    kept = (dropout(torch.ones(200_000), 0.3) != 0).double()
    for distance in range(1, 9):
        pair = torch.stack([kept[:-distance], kept[distance:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 200_000**0.5
    first, second = (dropout(torch.ones(50_000), 0.3) != 0 for _ in range(2))
    assert abs(float(torch.corrcoef(torch.stack([first, second]).double())[0, 1])) < 4 / 50_000**0.5


def test_the_gradient_is_that_of_the_same_mask() -> None:
    given = features().requires_grad_()
    found = dropout(given, 0.3)
    found.sum().backward()
    torch.testing.assert_close(given.grad, torch.where(found != 0, 1 / 0.7, 0.0))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (0, 4, 2, 2)])
def test_any_shape_and_number_of_values(shape: tuple[int, ...]) -> None:
    assert dropout(torch.ones(shape), 0.5).shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype: torch.dtype) -> None:
    given = torch.ones(64, dtype=dtype)
    found = dropout(given, 0.5)
    assert found.dtype == dtype
    assert set(found.tolist()) <= {0.0, 2.0}


def test_nothing_is_dropped_at_rate_zero() -> None:
    torch.testing.assert_close(dropout(features(), 0.0), features(), rtol=0, atol=0)


def test_a_seed_gives_the_same_mask() -> None:
    masks = []
    for _ in range(2):
        torch.manual_seed(5)
        masks.append(dropout(features(), 0.3))
    torch.testing.assert_close(*masks, rtol=0, atol=0)
