"""Hard pixels against a sorted list, and that what is not labelled is never hard."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.losses import hard_pixel_weight

C = 3


def some_logits() -> Tensor:
    return 2 * torch.randn(2, C, 6, 5, generator=torch.Generator().manual_seed(0))


def some_labels(ignored: int = 255) -> Tensor:
    labels = torch.randint(0, C, (2, 6, 5), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = ignored
    return labels


def literal(logits: Tensor, labels: Tensor, threshold: float, kept: int, ignore_index: int = 255) -> Tensor:
    """Below the threshold, or among the ``kept`` smallest probabilities of a sorted list, in float64."""
    pixels = []
    for place in torch.cartesian_prod(*(torch.arange(size) for size in labels.shape)).tolist():
        truth = int(labels[tuple(place)])
        if truth != ignore_index:
            n, row, column = place
            pixels.append((float(logits[n, :, row, column].double().softmax(0)[truth]), place))
    result = torch.zeros(labels.shape)
    for rank, (p, place) in enumerate(sorted(pixels)):
        result[tuple(place)] = float(p < threshold or rank < kept)
    return result


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.7, 1.0])
@pytest.mark.parametrize(("min_kept", "kept"), [(0.0, 0), (0.02, 1), (0.3, 15), (0.31, 16), (1.0, 50)])
def test_equals_a_sorted_list(threshold: float, min_kept: float, kept: int):
    result = hard_pixel_weight(some_logits(), some_labels(), threshold=threshold, min_kept=min_kept)
    assert result.dtype == torch.float32
    assert torch.equal(result, literal(some_logits(), some_labels(), threshold, kept))


def test_defaults_are_written_out():
    spelled = hard_pixel_weight(some_logits(), some_labels(), threshold=0.7, min_kept=0.0625, ignore_index=255)
    assert torch.equal(hard_pixel_weight(some_logits(), some_labels()), spelled)


def test_a_share_of_pixels_is_rounded_up_but_not_for_a_rounding_error():
    labels = torch.zeros(1, 5, 6).long()
    for share, kept in ((0.1, 3), (0.11, 4), (1e-5, 1), (0.0, 0)):  # 0.1 × 30 is 3.0000000000000004
        hard = hard_pixel_weight(some_logits()[:1].reshape(1, C, 5, 6), labels, threshold=0.0, min_kept=share)
        assert hard.sum().item() == kept


def test_pixels_as_hard_as_each_other_do_not_all_count():
    # Sure to the last bit: p is 1 everywhere, and 1 of 16 is asked for.
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 100.0
    assert hard_pixel_weight(logits, torch.zeros(1, 4, 4).long()).sum().item() == 1.0


@pytest.mark.parametrize(("ignore_index", "dtype"), [(0, torch.uint8), (-1, torch.int64), (255, torch.uint8)])
def test_pixels_without_a_label_are_never_hard(ignore_index: int, dtype: torch.dtype):
    labels = some_labels(ignore_index).to(dtype)
    result = hard_pixel_weight(some_logits(), labels, threshold=0.0, min_kept=1.0, ignore_index=ignore_index)
    assert torch.equal(result, (labels != ignore_index).float())
    below = hard_pixel_weight(some_logits(), labels, min_kept=0.0, ignore_index=ignore_index)
    assert torch.equal(below, literal(some_logits(), labels, 0.7, 0, ignore_index))


def test_logits_at_ignored_pixels_change_nothing():
    expected = hard_pixel_weight(some_logits(), some_labels(), threshold=0.1, min_kept=0.4)
    other = torch.where((some_labels() == 255)[:, None], -some_logits() * 9, some_logits())
    assert torch.equal(hard_pixel_weight(other, some_labels(), threshold=0.1, min_kept=0.4), expected)


def test_nothing_labelled_is_nothing_hard():
    assert hard_pixel_weight(some_logits(), torch.full((2, 6, 5), 255)).eq(0).all()
    assert hard_pixel_weight(torch.zeros(0, C, 2, 2), torch.zeros(0, 2, 2).long()).shape == (0, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_type(dtype: torch.dtype):
    given = some_logits().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = hard_pixel_weight(given, some_labels())
    assert result.dtype == torch.float32
    assert torch.equal(result, literal(given, some_labels(), 0.7, math.ceil(50 / 16)))


def test_no_gradient_comes_through():
    assert not hard_pixel_weight(some_logits().requires_grad_(), some_labels()).requires_grad


class _Largest(TorchDispatchMode):
    """The largest tensor that is made, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.given:
            self.numbers = max(self.numbers, result.numel())
        return result


def test_nothing_of_the_batchs_size_is_made():
    logits, labels = torch.randn(6, 5, 8, 8), torch.randint(0, 5, (6, 8, 8))
    with _Largest() as seen:
        seen.given = {logits.untyped_storage().data_ptr()}
        hard_pixel_weight(logits, labels, threshold=0.0, min_kept=0.5)
    assert seen.numbers <= max(labels.numel(), logits[0].numel())


@pytest.mark.parametrize("name", ["threshold", "min_kept"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_shares_outside_their_range_are_refused(name: str, value: float):
    with pytest.raises(UserError, match=rf"{name} is .*; expected 0 … 1"):
        hard_pixel_weight(some_logits(), some_labels(), **{name: value})


def test_logits_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"expected logits of the labels' size; resize_logits\(logits, labels\)"):
        hard_pixel_weight(some_logits(), torch.zeros(2, 3, 3).long())
