"""The importance S against autograd, and heads that are not one linear convolution."""

import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import drop_features, drop_features_through


def random(*shape: int, seed: int = 0) -> Tensor:
    """Float64 noise of either sign."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_through(head: nn.Module, features: Tensor, dropped: int | None, divisor: str) -> Tensor:
    """The same with the importance from one backward pass a class."""
    leaf = features.detach().clone().requires_grad_()
    logits = head(leaf.clone())  # a copy, for heads that work in place
    total, kept = torch.zeros_like(features), 0
    for c in range(logits.shape[1]):
        if c != dropped:
            (importance,) = torch.autograd.grad(logits[:, c].sum(), leaf, retain_graph=True)
            total, kept = total + torch.relu(features * importance), kept + 1
    return total / (kept if divisor == "kept" else logits.shape[1])


@pytest.mark.parametrize("dropped", [None, 1])
def test_importance_of_a_1x1_classifier_is_the_gradient_of_the_summed_logits(dropped: int | None):
    classifier = nn.Conv2d(6, 4, 1).double()
    features = random(2, 6, 5, 3)
    expected = literal_through(classifier, features, dropped, "kept")
    result = drop_features(features, classifier.weight, dropped)
    # autograd and the weight are the same number for 1×1; only the sum's order differs.
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)


def test_importance_of_a_3x3_classifier_is_exact_away_from_the_padded_border():
    classifier = nn.Conv2d(6, 4, 3, padding=1).double()
    features = random(1, 6, 7, 6)
    expected = literal_through(classifier, features, 2, "kept")
    result = drop_features(features, classifier.weight, 2)
    # Nine taps summed in another order.
    torch.testing.assert_close(result[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-12, atol=1e-14)


def nonlinear_head(kind: str) -> nn.Sequential:
    """Heads K = 6 → C = 5 in float64."""
    torch.manual_seed(3)
    layers: dict[str, list[nn.Module]] = {
        "conv-relu-conv": [nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1)],
        "batch norm": [nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3)],
        "in place first": [nn.Hardswish(inplace=True), nn.Conv2d(6, 5, 1)],
        "strided": [nn.Conv2d(6, 5, 3, stride=2, padding=1)],
        "transposed": [nn.GELU(), nn.ConvTranspose2d(6, 5, 2, stride=2)],
        "dropout": [nn.Conv2d(6, 8, 1), nn.Dropout(0.5), nn.Sigmoid(), nn.Conv2d(8, 5, 1)],
    }
    head = nn.Sequential(*layers[kind]).double()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return head


HEADS = ["conv-relu-conv", "batch norm", "in place first", "strided", "transposed", "dropout"]


@pytest.mark.parametrize("divisor", ["kept", "all"])
@pytest.mark.parametrize("dropped", [None, 3])
@pytest.mark.parametrize("kind", HEADS)
def test_through_a_head_equals_one_backward_pass_a_class(kind: str, dropped: int | None, divisor: str):
    head, features = nonlinear_head(kind), random(2, 6, 5, 6)
    before = features.clone()
    result = drop_features_through(head, features, dropped, divisor)
    assert torch.equal(features, before)
    # The batched backward pass sums in another order than one pass a class.
    torch.testing.assert_close(result, literal_through(head.eval(), before, dropped, divisor), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dropped", [None, 0])
def test_through_a_linear_1x1_head_equals_drop_features(dropped: int | None):
    head, features = nn.Conv2d(6, 5, 1).double(), random(2, 6, 3, 4)
    # Both sum over the classes, in another order.
    torch.testing.assert_close(
        drop_features_through(head, features, dropped),
        drop_features(features, head.weight, dropped),
        rtol=1e-12,
        atol=1e-14,
    )


def test_through_treats_each_image_by_itself():
    head, features = nonlinear_head("conv-relu-conv"), random(3, 6, 4, 4)
    together = drop_features_through(head, features, 1)
    alone = torch.cat([drop_features_through(head, image[None], 1) for image in features])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-13)  # convolutions of other batch sizes


@pytest.mark.parametrize("classes_at_once", [1, 2, 3, 5, 100, 0])
def test_through_does_not_depend_on_how_many_classes_run_at_once(classes_at_once: int):
    head, features = nonlinear_head("batch norm"), random(2, 6, 5, 6)
    result = drop_features_through(head, features, 2, classes_at_once=classes_at_once)
    # Chunks change the order of a sum of 4 terms.
    torch.testing.assert_close(result, drop_features_through(head, features, 2), rtol=1e-10, atol=1e-13)


def test_through_leaves_statistics_modes_gradients_and_rng_alone():
    head = nonlinear_head("batch norm").train()
    head[1].eval()
    modes = [module.training for module in head.modules()]
    state = {key: value.clone() for key, value in head.state_dict().items()}
    rng = torch.get_rng_state()
    drop_features_through(head, random(2, 6, 5, 6).requires_grad_(), 1).sum().backward()
    assert [module.training for module in head.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in head.state_dict().items())
    assert all(parameter.grad is None for parameter in head.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_through_restores_the_modes_when_the_head_fails():
    head = nonlinear_head("batch norm").train()
    with pytest.raises(RuntimeError, match="channels"):
        drop_features_through(head, random(2, 7, 5, 6), 1)
    assert all(module.training for module in head.modules())


def test_gradient_through_a_head_takes_the_importance_as_constant():
    head, features = nonlinear_head("conv-relu-conv"), random(1, 6, 4, 4).requires_grad_()
    (ours,) = torch.autograd.grad(drop_features_through(head, features, 1).sum(), features)
    (expected,) = torch.autograd.grad(literal_through(head, features, 1, "kept").sum(), features)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-13)  # sums in another order


def test_through_works_without_gradients_and_in_inference_mode():
    head, features = nonlinear_head("conv-relu-conv"), random(1, 6, 4, 4)
    expected = drop_features_through(head, features, 1)
    with torch.no_grad():
        assert torch.equal(drop_features_through(head, features, 1), expected)
    with torch.inference_mode():
        assert torch.equal(drop_features_through(head, features, 1), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_through_keeps_the_dtype_under_autocast(dtype: torch.dtype):
    head, features = nonlinear_head("conv-relu-conv").float(), random(1, 6, 4, 4).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        result = drop_features_through(head, features, 1)
    assert result.dtype == dtype
    expected = literal_through(head.double(), features.double(), 1, "kept")
    # The importance is rounded, four are summed, multiplied and divided, each with one rounding to the dtype.
    torch.testing.assert_close(result.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=1e-3)


@pytest.mark.parametrize("dropped", [-1, 5, 1.5])
def test_through_refuses_a_class_that_does_not_exist(dropped: object):
    with pytest.raises(ModelError, match=r"the dropped class is .*0 … 4"):
        drop_features_through(nonlinear_head("strided"), random(1, 6, 4, 4), dropped)  # type: ignore[arg-type]
