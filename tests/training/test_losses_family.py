"""What every loss of full-size logits and labels keeps to: ignored pixels, label types, half precision, nothing to count."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.training.losses import dice_loss, focal_loss, lovasz_softmax, push_loss, template_loss

Loss = Callable[..., Tensor]
C = 4
LOSSES: dict[str, Loss] = {
    "focal": focal_loss,
    "focal, all weights": partial(
        focal_loss,
        gamma=0.5,
        class_weight=torch.tensor([1.0, 3.0, 0.5, 2.0]),
        pixel_weight=torch.linspace(0.1, 2, 84).view(2, 6, 7),
    ),
    "dice": dice_loss,
    "dice, smooth": partial(dice_loss, smooth=1.0),
    "lovasz": lovasz_softmax,
    "template": template_loss,
    "template, correlation": partial(template_loss, similarity="correlation"),
    "push": push_loss,
    "push, correlation": partial(push_loss, similarity="correlation"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def some_logits(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(2, C, 6, 7, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def some_labels() -> Tensor:
    labels = torch.randint(0, C, (2, 6, 7), generator=torch.Generator().manual_seed(1))
    labels[:, :2] = 255
    return labels


def value_and_gradient(loss: Loss, logits: Tensor, labels: Tensor, **options) -> tuple[Tensor, Tensor]:
    value = loss(logits, labels, **options)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@every_loss
def test_a_scalar_of_float32_or_float64(loss: Loss):
    for dtype, wide in ((torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        value, gradient = value_and_gradient(loss, some_logits(dtype), some_labels())
        assert (value.shape, value.dtype, gradient.dtype) == ((), wide, dtype)
        assert value > 0
        assert gradient.isfinite().all()
        assert gradient.ne(0).any()


@every_loss
def test_an_all_ignored_batch_gives_zero_and_zero_gradients(loss: Loss):
    value, gradient = value_and_gradient(loss, some_logits(), torch.full((2, 6, 7), 255))
    assert value.item() == 0.0
    assert gradient.eq(0).all()


@every_loss
def test_an_ignored_image_beside_another_gives_no_nan(loss: Loss):
    labels = some_labels()
    labels[1] = 255
    value, gradient = value_and_gradient(loss, some_logits(), labels)
    assert value > 0
    assert gradient[0].ne(0).any()
    assert gradient[1].eq(0).all()


def test_an_empty_batch_gives_zero():
    for name, loss in LOSSES.items():
        if name != "focal, all weights":  # whose pixel weights are of two images
            assert loss(torch.zeros(0, C, 2, 2), torch.zeros(0, 2, 2).long()).item() == 0.0, name


@every_loss
def test_logits_at_ignored_pixels_change_nothing(loss: Loss):
    logits, labels = some_logits(), some_labels()
    other = torch.where((labels == 255)[:, None], 50.0 - 3 * logits.detach(), logits.detach()).requires_grad_()
    value, gradient = value_and_gradient(loss, logits, labels)
    changed, changed_gradient = value_and_gradient(loss, other, labels)
    assert torch.equal(value, changed)
    assert torch.equal(gradient, changed_gradient)
    assert gradient.movedim(1, -1)[labels == 255].eq(0).all()


@every_loss
def test_a_class_that_is_nowhere_gives_no_nan(loss: Loss):
    labels = some_labels()
    labels[labels == 3] = 255
    value, gradient = value_and_gradient(loss, some_logits(), labels)
    assert value > 0
    assert gradient.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integer_label_dtype(loss: Loss, dtype: torch.dtype):
    value, gradient = value_and_gradient(loss, some_logits(), some_labels())
    for of_dtype, expected in zip(
        value_and_gradient(loss, some_logits(), some_labels().to(dtype)), (value, gradient), strict=True
    ):
        assert torch.equal(of_dtype, expected)


@every_loss
@pytest.mark.parametrize("ignore_index", [-1, -100, 254])
def test_any_ignore_index(loss: Loss, ignore_index: int):
    labels = some_labels()
    expected = value_and_gradient(loss, some_logits(), labels)
    labels[labels == 255] = ignore_index
    value, gradient = value_and_gradient(loss, some_logits(), labels, ignore_index=ignore_index)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])


@every_loss
def test_a_class_can_be_ignored(loss: Loss):
    labels = some_labels()
    expected = value_and_gradient(loss, some_logits(), labels.masked_fill(labels == 0, 255))
    labels[labels == 255] = 0
    value, gradient = value_and_gradient(loss, some_logits(), labels.to(torch.uint8), ignore_index=0)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])


@every_loss
def test_small_unsigned_labels_with_a_negative_ignore_index(loss: Loss):
    labels = some_labels().clamp(max=C - 1)
    expected = loss(some_logits(), labels)
    assert torch.equal(loss(some_logits(), labels.to(torch.uint8), ignore_index=-1), expected)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype):
    half = some_logits(dtype)
    expected, slope = value_and_gradient(loss, half.detach().float().requires_grad_(), some_labels())
    for inside in (False, True):
        with torch.autocast("cpu", dtype=dtype, enabled=inside):
            value = loss(half, some_labels())
        assert value.dtype == torch.float32
        assert torch.equal(value, expected)
        assert torch.equal(torch.autograd.grad(value, half)[0], slope.to(dtype))


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(loss: Loss, scale: float):
    value, gradient = value_and_gradient(loss, (some_logits().detach() * scale).requires_grad_(), some_labels())
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_one_class_is_enough(loss: Loss):
    if isinstance(loss, partial) and "class_weight" in loss.keywords:
        loss = partial(focal_loss, class_weight=torch.tensor([2.0]))
    logits = some_logits().detach()[:, :1].requires_grad_()
    value, gradient = value_and_gradient(loss, logits, some_labels().clamp(max=0))
    assert value.isfinite()
    assert gradient.isfinite().all()


@every_loss
def test_labels_are_not_changed(loss: Loss):
    labels = some_labels()
    loss(some_logits(), labels)
    assert torch.equal(labels, some_labels())


@every_loss
def test_the_gradient_in_float64_is_that_of_the_value(loss: Loss):
    # The losses are smooth but where errors, templates or hinges tie, and random numbers do not.
    labels = some_labels()[:, 1:4, :3]
    if isinstance(loss, partial) and "pixel_weight" in loss.keywords:
        loss = partial(loss, pixel_weight=torch.linspace(0.1, 2, 18, dtype=torch.float64).view(2, 3, 3))
    logits = some_logits(torch.float64).detach()[:, :, 1:4, :3].clone().requires_grad_()
    # The pull's template is a constant for autograd, but not for differences: see its own test.
    if loss is not template_loss and getattr(loss, "func", None) is not template_loss:
        assert torch.autograd.gradcheck(lambda given: loss(given, labels), logits)


@every_loss
def test_what_does_not_belong_together_is_refused(loss: Loss):
    with pytest.raises(DataError, match=r"labels have shape \(1, 6, 7\); expected \(2, H, W\) as the logits"):
        loss(some_logits(), some_labels()[:1])
    with pytest.raises(DataError, match=r"expected logits of the labels' size; resize_logits\(logits, labels\)|pixel"):
        loss(some_logits(), torch.zeros(2, 12, 14).long())
