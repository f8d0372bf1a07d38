"""The class drop against the paper written out: a loop over classes, and autograd for the importance."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import channel_gates, drop_features, drop_features_through


def random(*shape: int, seed: int = 0) -> Tensor:
    """Float64 noise of either sign."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(features: Tensor, weight: Tensor, dropped: int | None, divisor: str) -> Tensor:
    """Eq. 2–4 as printed: one feature map a class, kept ones averaged."""
    kept = [c for c in range(weight.shape[0]) if c != dropped]
    total = torch.zeros_like(features)
    for c in kept:
        importance = torch.zeros(weight.shape[1], dtype=weight.dtype)
        for row, column in itertools.product(range(weight.shape[2]), range(weight.shape[3])):
            importance = importance + weight[c, :, row, column]
        total = total + torch.relu(features * importance[None, :, None, None])
    return total / (len(kept) if divisor == "kept" else weight.shape[0])


SIGNS = {
    "any signs": (lambda a: a, lambda w: w),
    "features never negative": (torch.relu, lambda w: w),
    "features never positive": (lambda a: -a.abs(), lambda w: w),
    "weights never positive": (lambda a: a, lambda w: -w.abs()),
    "weights never negative": (lambda a: a, torch.abs),
}


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (1, 5)])
@pytest.mark.parametrize("divisor", ["kept", "all"])
@pytest.mark.parametrize("dropped", [None, 0, 2, 4])
@pytest.mark.parametrize("signs", list(SIGNS))
def test_equals_the_literal_sum_over_classes(signs: str, dropped: int | None, divisor: str, kernel: tuple[int, int]):
    of_features, of_weight = SIGNS[signs]
    features, weight = of_features(random(2, 6, 4, 3)), of_weight(random(5, 6, *kernel, seed=1))
    expected = literal(features, weight, dropped, divisor)
    result = drop_features(features, weight, dropped, divisor)
    # A sum of at most 5 products in another order: a few float64 roundings.
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


# One pixel, A = (2, −3), W of class 0 = (1, −4), of class 1 = (−5, 6):
# class 0: ReLU(2·1, −3·−4) = (2, 12); class 1: ReLU(2·−5, −3·6) = (0, 0).
@pytest.mark.parametrize(
    ("dropped", "divisor", "expected"),
    [
        (None, "kept", [1.0, 6.0]),
        (None, "all", [1.0, 6.0]),
        (1, "kept", [2.0, 12.0]),
        (1, "all", [1.0, 6.0]),
        (0, "kept", [0.0, 0.0]),
    ],
)
def test_worked_by_hand(dropped: int | None, divisor: str, expected: list[float]):
    features = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1)
    weight = torch.tensor([[1.0, -4.0], [-5.0, 6.0]]).view(2, 2, 1, 1)
    assert drop_features(features, weight, dropped, divisor).flatten().tolist() == expected


def test_gates_worked_by_hand():
    weight = torch.tensor([[1.0, -4.0], [-5.0, 6.0], [3.0, 2.0]]).view(3, 2, 1, 1)
    positive, negative = channel_gates(weight, None)
    assert (positive * 3).tolist() == pytest.approx([4.0, 8.0])  # 1+3, 6+2; approx: a third is no float32
    assert (negative * 3).tolist() == pytest.approx([-5.0, -4.0])
    positive, negative = channel_gates(weight, 2)
    assert (positive.tolist(), negative.tolist()) == ([0.5, 3.0], [-2.5, -2.0])


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("dropped", [None, 1])
def test_gradcheck_with_respect_to_features_and_weight(dropped: int | None, kernel: int):
    # Away from 0, where ReLU has no derivative: a step of gradcheck (1e-6) must not cross it.
    features = random(1, 3, 2, 2)
    features = (features + 0.1 * features.sign()).requires_grad_()
    weight = random(3, 3, kernel, kernel, seed=3).requires_grad_()
    assert weight.sum((2, 3)).abs().min() > 1e-3
    assert torch.autograd.gradcheck(lambda a, w: drop_features(a, w, dropped), (features, weight))


@pytest.mark.parametrize("dropped", [None, 0])
@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_equal_those_of_the_literal_sum_also_at_zero(kernel: int, dropped: int | None):
    gradients = []
    for function in (drop_features, literal):
        features, weight = random(2, 4, 3, 3), random(3, 4, kernel, kernel, seed=1)
        features[:, :, 1] = 0.0  # A = 0 exactly: ReLU'(0) = 0
        features[0, :, 0] = -0.0
        weight[1, 2] = 0.0  # S = 0 exactly
        features.requires_grad_()
        weight.requires_grad_()
        loss = (function(features, weight, dropped, "kept") * random(2, 4, 3, 3, seed=2)).sum()
        gradients.append(torch.autograd.grad(loss, (features, weight)))
    for ours, expected in zip(*gradients, strict=True):
        # Sums over classes and pixels in another order.
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    assert gradients[0][0][:, :, 1].eq(0).all()


class ShapeRecorder(TorchDispatchMode):
    """Keeps the shape of every tensor that any operator makes, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.shapes.append(tuple(value.shape))
        return result


def test_no_tensor_has_a_class_axis_of_feature_maps():
    features = random(2, 8, 16, 16).requires_grad_()
    weight = random(150, 8, 1, 1, seed=1).requires_grad_()
    with ShapeRecorder() as recorder:
        drop_features(features, weight, 7).sum().backward()
    assert (2, 8, 16, 16) in recorder.shapes  # the recorder does see intermediates
    assert max(len(shape) for shape in recorder.shapes) == 4
    assert max(torch.Size(shape).numel() for shape in recorder.shapes) == features.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_features_keep_their_dtype_and_the_values_their_accuracy(dtype: torch.dtype):
    features, weight = random(2, 6, 4, 3).to(dtype), random(5, 6, 1, 1, seed=1).to(dtype)
    result = drop_features(features, weight, 3)
    assert result.dtype == dtype
    # The gates and the products are each rounded to the dtype once: 4 units in the last place cover both.
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        result.double(), literal(features.double(), weight.double(), 3, "kept"), rtol=tolerance, atol=1e-12
    )


def test_half_precision_gates_are_summed_in_float32():
    # 1,000 classes of 1/64 after a first one of 256: in float16 each addition would be lost (256 + 1/64 = 256).
    weight = torch.full((1001, 1, 1, 1), 1 / 64, dtype=torch.float16)
    weight[0] = 256.0
    positive, _ = channel_gates(weight, None)
    assert positive.dtype == torch.float32
    assert positive.item() == pytest.approx((256 + 1000 / 64) / 1001, rel=1e-6)  # one float32 rounding an addition


def test_features_are_not_changed():
    features, weight = random(1, 3, 2, 2), random(2, 3, 1, 1)
    before = features.clone()
    drop_features(features, weight, 0)
    assert torch.equal(features, before)


def test_a_map_without_pixels_gives_one_without_pixels():
    assert drop_features(torch.zeros(0, 3, 2, 2), torch.ones(2, 3, 1, 1), 0).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("dropped", [np.int64(1), np.uint8(1), torch.tensor(1)], ids=["int64", "uint8", "tensor"])
def test_every_integer_type_names_a_class(dropped: object):
    features, weight = random(1, 6, 2, 2), random(5, 6, 1, 1)
    head = torch.nn.Conv2d(6, 5, 1, dtype=torch.float64)
    assert torch.equal(drop_features(features, weight, dropped), drop_features(features, weight, 1))
    assert torch.equal(drop_features_through(head, features, dropped), drop_features_through(head, features, 1))


@pytest.mark.parametrize(
    "dropped", [-1, 5, np.int64(5), True, np.bool_(True), torch.tensor(True), 1.0, np.float64(1), "2", torch.ones(2)]
)
def test_a_dropped_class_that_is_no_class_id_is_refused(dropped: object):
    with pytest.raises(ModelError, match=r"the dropped class is .*; expected an integer 0 … 4, or None"):
        drop_features(random(1, 6, 2, 2), random(5, 6, 1, 1), dropped)  # type: ignore[arg-type]


def test_an_unknown_divisor_is_refused():
    with pytest.raises(ModelError, match=r"divisor is 'mean'; expected \"kept\" or \"all\""):
        drop_features(random(1, 6, 2, 2), random(5, 6, 1, 1), 1, "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6, 2, 2), (1, 5, 2, 2), (1, 6, 2, 2, 1)])
def test_features_that_do_not_fit_the_classifier_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ModelError, match=r"features have shape .*; expected \(N, 6, h, w\)"):
        drop_features(random(*shape), random(5, 6, 1, 1), None)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6, 1, 1)])
def test_a_weight_that_is_not_of_a_classifier_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ModelError, match=r"the classifier's weight has shape"):
        drop_features(random(1, 6, 2, 2), random(*shape), None)
