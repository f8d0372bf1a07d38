"""Dice and Lovász-softmax against other implementations, literal sums in float64, and cases worked by hand."""

import itertools
import math

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss, LovaszLoss
from torch import Tensor
from torchmetrics.functional.segmentation import dice_score

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.losses import dice_loss, lovasz_softmax

C = 4


def some_logits(size: tuple[int, int] = (5, 6), scale: float = 2.0) -> Tensor:
    return scale * torch.randn(2, C, *size, generator=torch.Generator().manual_seed(0))


def some_labels(size: tuple[int, int] = (5, 6), classes: int = C) -> Tensor:
    labels = torch.randint(0, classes, (2, *size), generator=torch.Generator().manual_seed(1))
    labels[:, 0] = 255
    return labels


def sure_logits(ids: Tensor) -> Tensor:
    """Probabilities of 0 and 1 to the last bit: e⁻²⁰⁰ is 0 in float32."""
    return 200.0 * torch.nn.functional.one_hot(ids, C).movedim(-1, 1)


def literal_dice(logits: Tensor, labels: Tensor, smooth: float) -> float:
    probability = logits.double().softmax(1)
    scores = []
    for c in range(C):
        common = predicted = size = 0.0
        for n, row, column in torch.cartesian_prod(*(torch.arange(length) for length in labels.shape)).tolist():
            if int(labels[n, row, column]) == 255:
                continue
            p, is_truth = float(probability[n, c, row, column]), int(labels[n, row, column]) == c
            common += p * is_truth
            predicted += p
            size += is_truth
        if size:
            scores.append((2 * common + smooth) / (predicted + size + smooth))
    return 1 - sum(scores) / len(scores)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("classes", [1, 3, 4])
def test_dice_equals_the_literal_sums(classes: int, smooth: float):
    labels = some_labels(classes=classes)
    result = dice_loss(some_logits(), labels, smooth=smooth)
    # Float32 probabilities; the sums are longer.
    assert result.item() == pytest.approx(literal_dice(some_logits(), labels, smooth), rel=1e-6)


def test_dice_equals_segmentation_models_pytorch():
    logits, theirs = some_logits().double().requires_grad_(), some_logits().double().requires_grad_()
    # Theirs adds its smooth to half of numerator and denominator.
    ours = dice_loss(logits, some_labels(), smooth=2.0)
    expected = DiceLoss("multiclass", smooth=1.0, ignore_index=255)(theirs, some_labels())  # all four classes occur
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits)[0], torch.autograd.grad(expected, theirs)[0], rtol=1e-9, atol=1e-15
    )


def test_dice_of_sure_predictions_is_torchmetrics_score():
    labels, predicted = some_labels().clamp(max=C - 1), some_labels().flip(0).clamp(max=C - 2)
    # One image of the whole batch: torchmetrics averages over images.
    score = dice_score(
        predicted.view(1, -1), labels.view(1, -1), num_classes=C, average="macro", input_format="index"
    ).mean()
    result = dice_loss(sure_logits(predicted), labels)
    torch.testing.assert_close(1 - result, score, rtol=1e-6, atol=0)  # float32


def test_dice_worked_by_hand():
    # Two pixels of class 0, one of class 1, all p = (1/2, 1/2): 2·1/(1.5 + 2) = 4/7 and 2·0.5/(1.5 + 1) = 2/5.
    result = dice_loss(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, 1]]]))
    assert result.item() == pytest.approx(1 - (4 / 7 + 2 / 5) / 2, rel=1e-6)  # float32


@pytest.mark.parametrize("loss", [dice_loss, lovasz_softmax])
def test_a_perfect_prediction_has_no_loss(loss):
    assert loss(sure_logits(some_labels().clamp(max=C - 1)), some_labels()).item() == 0.0


@pytest.mark.parametrize("loss", [dice_loss, lovasz_softmax])
def test_the_batch_is_one_region(loss):
    # Side by side or one after the other, the same pixels have the same loss.
    side_by_side = loss(torch.cat(tuple(some_logits()), 2)[None], torch.cat(tuple(some_labels()), 1)[None])
    torch.testing.assert_close(loss(some_logits(), some_labels()), side_by_side, rtol=1e-6, atol=0)  # order of sums


@pytest.mark.parametrize("smooth", [-1.0, math.inf, math.nan])
def test_a_smooth_that_cannot_be_is_refused(smooth: float):
    with pytest.raises(UserError, match=r"smooth is .*; expected a number of pixels from 0 on"):
        dice_loss(some_logits(), some_labels(), smooth=smooth)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """Δ of Eq. 4: 1 − IoU when the pixels ``wrong`` are mispredicted."""
    return len(wrong) / len(truth | wrong)


def literal_lovasz(logits: Tensor, labels: Tensor) -> float:
    """Definition 1 of the paper: errors from the largest down, times what each adds to Δ of all before it."""
    probability = logits.double().softmax(1).movedim(1, -1)[labels != 255]
    ids = labels[labels != 255].tolist()
    losses = []
    for c in sorted(set(ids)):
        truth = {pixel for pixel, label in enumerate(ids) if label == c}
        errors = [float(1 - p if pixel in truth else p) for pixel, p in enumerate(probability[:, c])]
        order = sorted(range(len(ids)), key=lambda pixel, errors=errors: -errors[pixel])
        losses.append(
            sum(
                errors[pixel] * (jaccard_loss(set(order[: k + 1]), truth) - jaccard_loss(set(order[:k]), truth))
                for k, pixel in enumerate(order)
            )
        )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("classes", [1, 3, 4])
def test_lovasz_equals_its_definition(classes: int, scale: float, dtype: torch.dtype):
    logits, labels = some_logits(scale=scale).to(dtype), some_labels(classes=classes)
    expected = literal_lovasz(logits, labels)
    # Sums of some hundred products in the given type, some of them negative.
    assert lovasz_softmax(logits, labels).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_lovasz_equals_segmentation_models_pytorch(scale: float):
    labels = some_labels((60, 40), classes=3)
    logits, theirs = (some_logits((60, 40), scale).requires_grad_() for _ in range(2))
    ours, expected = lovasz_softmax(logits, labels), LovaszLoss("multiclass", ignore_index=255)(theirs, labels)
    # Theirs takes differences of cumulated float32 ratios: 2⁻²⁴ of some 1/1600.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=0)
    gradient = torch.autograd.grad(expected, theirs)[0]
    bound = 1e-3 * float(gradient.abs().max())
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], gradient, rtol=1e-3, atol=bound)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_both_ways_of_sorting_agree(scale: float):
    # Float32 on a CPU is sorted by NumPy, without pixels that have no slope; float64 by torch, as on a GPU, with all.
    labels = some_labels((60, 40))
    short = some_logits((60, 40), scale).requires_grad_()
    long = short.detach().double().requires_grad_()
    expected = lovasz_softmax(long, labels)
    value = lovasz_softmax(short, labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)  # float32 probabilities
    gradient = torch.autograd.grad(expected, long)[0]
    # Two errors less than a float32 apart may change places, and with them two slopes of 1/4000 or so that differ by less.
    bound = 1e-4 * float(gradient.abs().max())
    torch.testing.assert_close(torch.autograd.grad(value, short)[0].double(), gradient, rtol=1e-4, atol=bound)


def test_lovasz_of_sure_predictions_is_the_jaccard_loss():
    # The extension agrees with Δ at the corners of the cube of errors: every prediction of three pixels.
    truth = torch.tensor([[[0, 1, 1]]])
    for predicted in itertools.product(range(2), repeat=3):
        ids = torch.tensor([[predicted]])
        losses = []
        for c in (0, 1):
            wrong = {k for k in range(3) if (predicted[k] == c) != (int(truth[0, 0, k]) == c)}
            losses.append(jaccard_loss(wrong, {k for k in range(3) if int(truth[0, 0, k]) == c}))
        assert lovasz_softmax(sure_logits(ids)[:, :2], truth).item() == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_lovasz_worked_by_hand():
    # Class 0: truth p = 0.6 (error 0.4), others p = 0.5, 0.2. Errors down: 0.5 (other) adds 1/2, 0.4 (truth) the rest, 1/2;
    # 0.2 nothing. 0.5·0.5 + 0.4·0.5 = 0.45. Class 1: errors 0.5 (truth), 0.4 (other), 0.2 (truth) add 1/2, 1/6, 1/3:
    # 0.25 + 0.4/6 + 0.2/3.
    p = torch.tensor([0.6, 0.5, 0.2])
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    # Of the two errors of 0.5 and 0.4 both classes have, each is rounded: float32.
    result = lovasz_softmax(logits, torch.tensor([[[0, 1, 1]]]))
    assert result.item() == pytest.approx((0.45 + 0.25 + 0.4 / 6 + 0.2 / 3) / 2, rel=1e-6)


def test_equal_errors_give_one_value_and_a_finite_gradient():
    # Zero logits: every error of a class ties with many others; by symmetry the value is Δ's, scaled.
    logits = torch.zeros(2, C, 5, 6, requires_grad=True)
    value = lovasz_softmax(logits, some_labels())
    assert value.item() == pytest.approx(literal_lovasz(logits.detach(), some_labels()), rel=1e-6)  # float32
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_nan_logits_are_not_hidden():
    logits = some_logits()
    logits[0, 1, 3, 3] = math.nan
    assert lovasz_softmax(logits, some_labels()).isnan()
    assert dice_loss(logits, some_labels()).isnan()
