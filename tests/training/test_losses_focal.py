"""Focal loss against a literal sum in float64, other implementations, and cross-entropy where they are the same."""

import math

import pytest
import torch
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from dropclass_deploy.core.errors import DataError, UserError
from dropclass_deploy.training.losses import cross_entropy, focal_loss

C = 4
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.0])


def some_logits() -> Tensor:
    return 2 * torch.randn(2, C, 5, 6, generator=torch.Generator().manual_seed(0))


def some_labels() -> Tensor:
    labels = torch.randint(0, C, (2, 5, 6), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = 255
    return labels


def pixel_weights() -> Tensor:
    return torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(2)) + 0.5


def literal(
    logits: Tensor, labels: Tensor, gamma: float, class_weight: Tensor | None, pixel_weight: Tensor | None
) -> float:
    """Pixel by pixel, in Python's floats."""
    total = divisor = 0.0
    for n, row, column in torch.cartesian_prod(*(torch.arange(size) for size in labels.shape)).tolist():
        truth = int(labels[n, row, column])
        if truth == 255:
            continue
        exponents = [math.exp(value) for value in logits[n, :, row, column].tolist()]
        p = exponents[truth] / sum(exponents)
        factor = 1.0 if class_weight is None else float(class_weight[truth])
        factor *= 1.0 if pixel_weight is None else float(pixel_weight[n, row, column])
        total += factor * (1 - p) ** gamma * -math.log(p)
        divisor += factor
    return total / divisor


@pytest.mark.parametrize("pixel_weight", [None, pixel_weights()], ids=["", "pixel weights"])
@pytest.mark.parametrize("class_weight", [None, WEIGHT], ids=["", "class weights"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_equals_the_literal_sum(gamma: float, class_weight: Tensor | None, pixel_weight: Tensor | None):
    options = {"gamma": gamma, "class_weight": class_weight, "pixel_weight": pixel_weight}
    result = focal_loss(some_logits(), some_labels(), **options)
    # Some dozen float32 terms.
    assert result.item() == pytest.approx(literal(some_logits(), some_labels(), **options), rel=2e-6)


@pytest.mark.parametrize("pixel_weight", [None, pixel_weights()], ids=["", "pixel weights"])
@pytest.mark.parametrize("class_weight", [None, WEIGHT], ids=["", "class weights"])
def test_gamma_zero_is_cross_entropy(class_weight: Tensor | None, pixel_weight: Tensor | None):
    ours, theirs = some_logits().requires_grad_(), some_logits().requires_grad_()
    options = {"class_weight": class_weight, "pixel_weight": pixel_weight}
    result = focal_loss(ours, some_labels(), gamma=0.0, **options)
    expected = cross_entropy(theirs, some_labels(), **options)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)  # float32 sums in another order
    torch.testing.assert_close(
        torch.autograd.grad(result, ours)[0], torch.autograd.grad(expected, theirs)[0], rtol=1e-5, atol=1e-8
    )


def test_equals_the_softmax_form_of_segmentation_models_pytorch():
    labels = some_labels().clamp(max=C - 1)
    expected = softmax_focal_loss_with_logits(some_logits().double(), labels, gamma=2.0)
    torch.testing.assert_close(focal_loss(some_logits().double(), labels), expected, rtol=1e-12, atol=0)


def test_two_classes_are_torchvisions_sigmoid_form():
    # softmax of (a, b) at the second class is sigmoid(b − a), so with two classes the two forms are one.
    logits, labels = some_logits().double()[:, :2], some_labels().clamp(max=1)
    expected = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.double(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(focal_loss(logits, labels), expected, rtol=1e-12, atol=0)


def test_worked_by_hand():
    # Logits (ln 3, 0): p = (3/4, 1/4). Truth 0: (1/4)²·ln(4/3); truth 1: (3/4)²·ln 4.
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    result = focal_loss(logits, torch.tensor([[[0, 1]]]))
    assert result.item() == pytest.approx((math.log(4 / 3) / 16 + 9 * math.log(4) / 16) / 2, rel=1e-6)  # float32


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_a_pixel_without_any_error_has_no_loss_and_no_gradient(gamma: float):
    # (1 − p)^γ has an infinite slope at p = 1 for γ < 1, where float32 arrives at a difference of logits of 17.
    logits = torch.tensor([40.0, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    loss = focal_loss(logits, torch.zeros(1, 1, 1).long(), gamma=gamma)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.abs().max() < 1e-16  # e⁻⁴⁰


def test_a_nearly_sure_pixel_keeps_its_digits():
    # 1 − p = e⁻¹² / (1 + e⁻¹²): as 1 − 0.99999386 float32 has it to 1 %.
    logits = torch.tensor([12.0, 0.0]).view(1, 2, 1, 1)
    q = math.exp(-12) / (1 + math.exp(-12))
    result = focal_loss(logits, torch.zeros(1, 1, 1).long())
    # The loss q³ with −log p itself at float32's spacing of 1: 2⁻²⁴ / 6e-6 is 1 % three times.
    assert result.item() == pytest.approx(q * q * -math.log1p(-q), rel=0.04)


@pytest.mark.parametrize("zero", ["classes", "pixels"])
def test_weights_of_zero_give_zero_and_zero_gradients(zero: str):
    logits = some_logits().requires_grad_()
    weights = {"class_weight": torch.zeros(C)} if zero == "classes" else {"pixel_weight": torch.zeros(2, 5, 6)}
    loss = focal_loss(logits, some_labels(), **weights)
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.eq(0).all()


def test_half_precision_weights_are_widened():
    expected = focal_loss(some_logits(), some_labels(), class_weight=WEIGHT)
    assert torch.equal(focal_loss(some_logits(), some_labels(), class_weight=WEIGHT.half()), expected)


@pytest.mark.parametrize("gamma", [-1.0, math.inf, math.nan])
def test_a_gamma_that_cannot_be_is_refused(gamma: float):
    with pytest.raises(UserError, match=r"gamma is .*; expected a number from 0 on"):
        focal_loss(some_logits(), some_labels(), gamma=gamma)


def test_weights_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"class_weight has shape \(2,\); expected \(4,\)"):
        focal_loss(some_logits(), some_labels(), class_weight=torch.ones(2))
    with pytest.raises(DataError, match=r"pixel_weight has shape \(2, 5\); expected \(2, 5, 6\)"):
        focal_loss(some_logits(), some_labels(), pixel_weight=torch.ones(2, 5))
