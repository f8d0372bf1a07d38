"""Cross-entropy against torch's own where that is defined, and 0 where it is not."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.training.losses import check_labels, cross_entropy, resize_logits

WEIGHTS = [None, torch.tensor([0.1, 1.0, 7.0])]


def logits(height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)).requires_grad_()


def labels(height: int = 6, width: int = 5) -> Tensor:
    result = torch.randint(0, 3, (2, height, width), generator=torch.Generator().manual_seed(1))
    result[:, 0] = 255
    return result


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
def test_equals_torch_where_pixels_are_left(weight: Tensor | None):
    ours, theirs = logits(), logits()
    result = cross_entropy(ours, labels(), class_weight=weight)
    expected = F.cross_entropy(theirs, labels(), weight=weight, ignore_index=255)
    # The weights are summed in another order, in float32.
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(result, ours)[0], torch.autograd.grad(expected, theirs)[0], rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
def test_mean_over_all_divides_by_every_pixel(weight: Tensor | None):
    result = cross_entropy(logits(), labels(), class_weight=weight, mean_over_all=True)
    expected = (
        F.cross_entropy(
            logits().double(), labels(), None if weight is None else weight.double(), ignore_index=255, reduction="sum"
        )
        / 60
    )
    torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=0)  # float32 sum of 50 terms


@pytest.mark.parametrize("mean_over_all", [False, True])
@pytest.mark.parametrize("weight", WEIGHTS, ids=["plain", "weighted"])
def test_no_pixel_left_gives_zero_and_zero_gradient(weight: Tensor | None, mean_over_all: bool):
    given = logits()
    result = cross_entropy(given, torch.full((2, 6, 5), 255), class_weight=weight, mean_over_all=mean_over_all)
    assert result.item() == 0.0
    assert torch.autograd.grad(result, given)[0].eq(0).all()
    assert F.cross_entropy(given, torch.full((2, 6, 5), 255), ignore_index=255).isnan()  # what is avoided


def test_weights_of_zero_give_zero_and_zero_gradient():
    given = logits()
    result = cross_entropy(given, torch.ones(2, 6, 5).long(), class_weight=torch.tensor([1.0, 0.0, 1.0]))
    assert result.item() == 0.0
    assert torch.autograd.grad(result, given)[0].eq(0).all()


def test_an_empty_batch_gives_zero():
    for mean_over_all in (False, True):
        empty = cross_entropy(torch.zeros(0, 3, 2, 2), torch.zeros(0, 2, 2).long(), mean_over_all=mean_over_all)
        assert empty.item() == 0.0


def test_tiny_weights_keep_their_mean():
    # The mean of weighted terms does not depend on the scale of the weights, down to what float32 holds.
    expected = cross_entropy(logits(), labels())
    tiny = cross_entropy(logits(), labels(), class_weight=torch.full((3,), 1e-30))
    torch.testing.assert_close(tiny, expected, rtol=1e-5, atol=0)  # float32 sums


def test_smaller_logits_are_resized_bilinearly():
    small = logits(3, 4)
    resized = F.interpolate(small, size=(6, 5), mode="bilinear", align_corners=False)
    assert torch.equal(resize_logits(small, labels()), resized)
    # One float32 rounding a resize, in another order.
    torch.testing.assert_close(cross_entropy(small, labels()), cross_entropy(resized, labels()), rtol=1e-6, atol=0)


def test_logits_of_the_labels_size_are_not_touched():
    given = logits()
    assert resize_logits(given, labels()) is given


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_a_float32_loss(dtype: torch.dtype):
    half = logits().detach().to(dtype)
    result = cross_entropy(half, labels())
    assert result.dtype == torch.float32
    assert torch.equal(result, cross_entropy(half.float(), labels()))


def test_labels_are_not_changed():
    given = labels()
    cross_entropy(logits(), given, class_weight=WEIGHTS[1])
    assert torch.equal(given, labels())


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64, torch.bool]
)
def test_check_accepts_every_integer_type(dtype: torch.dtype):
    for ignore_index in (255, -100):
        check_labels(torch.ones(1, 2, 2).to(dtype), 3, ignore_index)


def test_check_names_what_it_found():
    given = labels()
    given[0, 3, 3] = 3
    with pytest.raises(DataError, match=r"1 label pixels hold ids such as 3; expected 0 … 2, or 255"):
        check_labels(given, 3, 255)
    check_labels(given, 4, 255)


def test_ignored_labels_count_only_as_the_ignore_index():
    with pytest.raises(DataError, match=r"10 label pixels hold ids such as 255; expected 0 … 2, or -1"):
        check_labels(labels(), 3, -1)


def test_sizes_that_do_not_belong_together_are_refused():
    with pytest.raises(DataError, match=r"labels have shape \(1, 6, 5\); expected \(2, H, W\)"):
        cross_entropy(logits(), labels()[:1])
    with pytest.raises(DataError, match=r"class_weight has shape \(2,\); expected \(3,\)"):
        cross_entropy(logits(), labels(), class_weight=torch.ones(2))
