"""The folded head against the branch it replaces, after training steps that make every number non-trivial."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import DropClass, FoldedHead, dropclass_loss, fold

# Folding multiplies the same numbers in another order: some roundings a channel in each of two convolutions.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


class Network(nn.Module):
    """A body whose last module decides the sign of the features, a classifier, a resize; output as a dict."""

    def __init__(self, last: nn.Module, kernel: int, align_corners: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), last)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(8, 4, kernel, padding=kernel // 2))
        self.align_corners = align_corners

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.head(self.body(images))
        size = images.shape[-2:]
        return {"out": F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)}


def trained(model: nn.Module, dtype: torch.dtype, classifier: str | None = None) -> DropClass:
    """After 6 steps: BatchNorm statistics, weights and biases are no longer those of the start."""
    torch.manual_seed(1)
    method = DropClass(model.to(dtype), classifier).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step in range(6):
        images = torch.randn(2, 3, 10, 12, dtype=dtype) + 0.3
        terms = dropclass_loss(method(images, step % 4), torch.randint(0, 4, (2, 10, 12)), progress=0.5, alpha=0.5)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    assert (method.branch.norm.running_var - 1).abs().min() > 1e-3
    assert (method.branch.norm.weight - 1).abs().max() > 1e-3
    return method


def network(last: nn.Module, kernel: int = 1, align_corners: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(last, kernel, align_corners)


def images(dtype: torch.dtype = torch.float64, height: int = 11, width: int = 14) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5), dtype=dtype)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(
    ("last", "non_negative"),
    [(nn.ReLU(), True), (nn.Hardswish(), False), (nn.Identity(), False)],
    ids=["relu", "hardswish", "linear"],
)
@torch.no_grad()
def test_the_folded_network_equals_the_branch(last, non_negative: bool, kernel: int, dtype, align_corners: bool):
    with torch.enable_grad():
        method = trained(network(last, kernel, align_corners), dtype).eval()
    assert method.classifier.non_negative is non_negative
    folded = fold(method).eval()
    given = images(dtype)
    branch = method(given).drop_logits
    expected = F.interpolate(branch, size=given.shape[-2:], mode="bilinear", align_corners=align_corners)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(folded(given)["out"], expected, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(folded(given)["out"], method.model(given)["out"], atol=1e-2)  # another head indeed


@torch.no_grad()
def test_features_of_either_sign_do_reach_the_signed_head():
    with torch.enable_grad():
        method = trained(network(nn.Identity()), torch.float64).eval()
    assert (method.model.body(images()) < -0.1).any()
    assert (method.model.body(images()) > 0.1).any()


@pytest.mark.parametrize(("last", "inputs"), [(nn.ReLU(), 8), (nn.Identity(), 16)], ids=["post-ReLU", "signed"])
def test_the_folded_head_is_one_1x1_convolution_and_the_classifier(last: nn.Module, inputs: int):
    folded = fold(trained(network(last), torch.float32))
    head = folded.get_submodule("head.1")
    assert isinstance(head, FoldedHead)
    assert tuple(head.conv.weight.shape) == (8, inputs, 1, 1)
    assert [type(module) for module in head.children()] == [nn.Conv2d, nn.Conv2d]
    assert head.conv.weight.dtype == torch.float32


def test_folding_leaves_the_method_and_its_model_alone():
    method = trained(network(nn.ReLU()), torch.float32)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    modes = [module.training for module in method.modules()]
    model, head = method.model, method.head
    folded = fold(method)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.add_(1.0)
    assert method.model is model
    assert method.head is head
    assert list(method.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert [module.training for module in method.modules()] == modes


@pytest.mark.parametrize("training", [True, False])
def test_the_folded_model_has_the_models_mode(training: bool):
    method = trained(network(nn.ReLU()), torch.float32).train(training)
    assert {module.training for module in fold(method).modules()} == {training}


@torch.no_grad()
def test_a_model_that_is_itself_the_convolution():
    torch.manual_seed(0)
    with torch.enable_grad():
        method = trained(nn.Conv2d(3, 4, 1), torch.float64).eval()
    # Same numbers in another order, see TOLERANCE.
    torch.testing.assert_close(fold(method)(images()), method(images()).drop_logits, rtol=1e-11, atol=1e-11)


class ReluThenAdd(nn.Module):
    """After its ReLU6 it adds, in place, a branch that is zero at first: its output may be negative, but is not yet."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.conv, self.norm = nn.ReLU6(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        features = self.act(features)
        features += self.norm(self.conv(features.clone()))
        return features


@torch.no_grad()
def test_features_that_become_negative_in_training_fold_as_signed_ones():
    with torch.enable_grad():
        method = trained(network(ReluThenAdd()), torch.float64).eval()
    assert not method.classifier.non_negative
    nn.init.constant_(method.model.body[2].norm.weight, -1.0)  # where longer training may lead
    assert (method.model.body(images()) < -0.1).any()
    expected = F.interpolate(method(images()).drop_logits, size=(11, 14), mode="bilinear", align_corners=False)
    # Same numbers in another order, see TOLERANCE.
    torch.testing.assert_close(fold(method).eval()(images())["out"], expected, rtol=1e-11, atol=1e-11)


class Aliased(nn.Module):
    """Its classifier has two names, and the forward pass uses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.classifier = self.net[2]

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.net[1](self.net[0](images)))


@torch.no_grad()
def test_a_classifier_with_two_names_is_replaced_under_both():
    torch.manual_seed(0)
    with torch.enable_grad():
        method = trained(Aliased(), torch.float64).eval()
    # Same numbers in another order, see TOLERANCE.
    torch.testing.assert_close(fold(method)(images()), method(images()).drop_logits, rtol=1e-11, atol=1e-11)


def test_the_divisor_option_does_not_change_the_folded_head():
    # With nothing dropped, the kept classes are all classes.
    method = trained(network(nn.ReLU()), torch.float32)
    other = copy.deepcopy(method)
    other.divisor = "all"
    for one, two in zip(fold(method).parameters(), fold(other).parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_nonlinear_head_is_refused():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    method = trained(model, torch.float32, "1")
    with pytest.raises(ModelError, match=r"the head '1' is not linear.*deploy the plain head"):
        fold(method)


def test_a_branch_without_running_statistics_is_refused():
    method = trained(network(nn.ReLU()), torch.float32)
    method.branch.norm = nn.BatchNorm2d(8, track_running_stats=False)
    with pytest.raises(ModelError, match="the branch has no running statistics"):
        fold(method)
