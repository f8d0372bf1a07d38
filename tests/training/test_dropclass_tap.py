"""Training without the network's own resize: the same features, logits, losses and gradients as with it, or not at all."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model
from dropclass_deploy.training.dropclass import DropClass, dropclass_loss, find_classifier, strip
from dropclass_deploy.training.methods import CrossEntropy, StepContext, build_method
from dropclass_deploy.training.recipe.sections import MethodSection

C = 5


class Network(nn.Module):
    """A body with BatchNorm, a 1×1 classifier at a quarter of the size, and whatever follows."""

    def __init__(self, tail=None, body_tail: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        if body_tail is not None:
            self.body.append(body_tail)
        self.classifier = nn.Conv2d(8, C, 1)
        self.tail = tail or resize(False)

    def forward(self, images: Tensor):
        return self.tail(self.classifier(self.body(images)), images)


def resize(align_corners: bool):
    def tail(logits: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)

    return tail


def images(seed: int = 1) -> Tensor:
    return torch.randn(2, 3, 33, 46, generator=torch.Generator().manual_seed(seed))


def labels(size: tuple[int, int] = (33, 46)) -> Tensor:
    result = torch.randint(0, C, (2, *size), generator=torch.Generator().manual_seed(3))
    result[:, :3] = 255
    return result


def gradients(
    method: DropClass, *, resized: bool, size: tuple[int, int] = (33, 46)
) -> tuple[Tensor, dict[str, Tensor]]:
    method.train().zero_grad()
    # In float64: the gradient of a bias before a BatchNorm is 0, and noise in float32.
    out = method.double()(images().double(), dropped=2, resized=resized)
    total = dropclass_loss(out, labels(size), progress=0.4).total
    total.backward()
    return total, {name: parameter.grad.clone() for name, parameter in method.named_parameters()}


class InADict(nn.Module):
    def forward(self, logits: Tensor, images: Tensor) -> dict[str, Tensor]:
        return {"out": resize(False)(logits, images), "aux": images.mean(1, keepdim=True)}


FUSED = {
    "resize": resize(False),
    "align corners": resize(True),
    "as they are": lambda logits, images: logits,
    "dict": InADict(),
    "to another size": lambda logits, images: F.interpolate(logits, size=(40, 50), mode="bilinear", align_corners=True),
}


@pytest.mark.parametrize("tail", list(FUSED))
def test_a_short_pass_has_the_loss_and_gradients_of_a_whole_one(tail: str):
    method = DropClass(Network(FUSED[tail]))
    assert method.classifier.tail is None
    total, expected = gradients(method, resized=True)
    short, found = gradients(method, resized=False)
    torch.testing.assert_close(short, total, rtol=1e-12, atol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("size", [(33, 46), (66, 92), (9, 12)])
def test_labels_of_another_size_go_the_same_way(size: tuple[int, int]):
    method = DropClass(Network(resize(True)))
    total, _ = gradients(method, resized=True, size=size)
    torch.testing.assert_close(gradients(method, resized=False, size=size)[0], total, rtol=1e-12, atol=0)


def test_a_short_pass_says_what_it_left_out():
    method = DropClass(Network())
    out = method(images(), dropped=None, resized=False)
    assert out.logits.shape == out.drop_logits.shape == (2, C, 9, 12)
    assert (out.size, out.resized_to, out.output) == ((33, 46), (33, 46), None)
    whole = method(images(), dropped=None)
    assert (whole.size, whole.resized_to) == ((33, 46), None)
    assert whole.logits.shape == (2, C, 33, 46)
    assert whole.output is whole.logits


class Normed(nn.Module):
    """A BatchNorm without parameters works on the logits: its statistics must see them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(C, affine=False)

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        self.norm(logits)
        return resize(False)(logits, images)


class OnlyInTraining(nn.Module):
    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        return resize(False)(logits * 0.5 if self.training else logits, images)


class InPlaceInTraining(nn.Module):
    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        if self.training:
            logits.mul_(0.5)
        return resize(False)(logits, images)


class PerImage(nn.Module):
    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        return resize(False)(logits.reshape(len(images), C, *logits.shape[-2:]), images)


class PadAndCrop(nn.Module):
    """Resizes to a multiple of 32 and crops: at 64×64 nothing but a resize."""

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = (-(-height // 32) * 32, -(-width // 32) * 32)
        return F.interpolate(logits, size=size, mode="bilinear")[..., :height, :width]


NOT_FUSED = {
    PadAndCrop: "the logits are not the classifier's output, as it is or resized bilinearly",
    Normed: "'tail.norm' works on the classifier's output",
    OnlyInTraining: "the logits are not the classifier's output, as it is or resized bilinearly, in training",
    InPlaceInTraining: "the logits are not the classifier's output, as it is or resized bilinearly, in training",
}


@pytest.mark.parametrize("tail", list(NOT_FUSED))
def test_what_follows_the_classifier_is_not_left_out(tail: type[nn.Module]):
    model = Network(tail())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method = DropClass(model)
    assert method.classifier.tail == NOT_FUSED[tail]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    out = method.train()(images(), dropped=1, resized=False)
    assert out.logits.shape == (2, C, 33, 46)  # the network's own
    assert out.resized_to is None


def test_a_network_that_counts_its_images_is_run_whole():
    method = DropClass(Network(PerImage()))
    assert method.classifier.tail == (
        "the network does not run on with an empty batch after its classifier (shape '[2, 5, 16, 16]' is invalid for input "
        "of size 0)"
    )
    assert method(images(), dropped=1, resized=False).logits.shape == (2, C, 33, 46)


class LaterScaled(nn.Module):
    """Scales its logits, in place, from some step on."""

    scaled = False

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        logits = logits.mul_(3) if self.scaled else logits
        return resize(False)(logits, images)


def test_a_network_that_changes_its_logits_later_is_run_whole_from_then_on():
    tail = LaterScaled()
    method = DropClass(Network(tail))
    torch.testing.assert_close(
        gradients(method, resized=False)[0], gradients(method, resized=True)[0], rtol=1e-12, atol=0
    )
    tail.scaled = True
    total, expected = gradients(method, resized=True)
    for _ in range(2):
        short, found = gradients(method, resized=False)
        torch.testing.assert_close(short, total, rtol=1e-12, atol=0)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_a_network_that_changes_later_is_not_compiled():
    tail = LaterScaled()
    method = DropClass(Network(tail))
    tail.scaled = True
    with (
        method.tap.compiled(),
        pytest.raises(ModelError, match=r"33×46 the network does more .*set train\.compile: false"),
    ):
        method.train()(images(), dropped=1, resized=False)


def test_another_model_in_the_wrapper_is_the_one_that_runs():
    method = DropClass(Network())
    other = Network()
    nn.init.zeros_(other.classifier.weight)
    method.model = other
    assert torch.equal(method.eval()(images()).logits, other.eval()(images()))


@pytest.mark.parametrize("name", ["ce", "ce+block", "dropclass"])
def test_every_method_trains_from_small_logits(name: str):
    section = MethodSection(name=name)
    method = build_method(Network(), section)
    assert method.loss_path() == "loss: fused with the resize of the logits, which never exist at full size"
    context = StepContext(0, 0.5, 0, 255, None, dropped=1 if name == "dropclass" else None)
    method.module.train()
    loss = method.loss(images(), labels(), context)
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in method.module.parameters())


def test_cross_entropy_is_that_of_the_networks_own_logits():
    model = Network(resize(True)).train()
    context = StepContext(0, 0.5, 0, 255, torch.linspace(0.5, 2, C))
    loss = build_method(model, MethodSection(name="ce")).loss(images(), labels(), context)
    expected = F.cross_entropy(model(images()), labels(), torch.linspace(0.5, 2, C), ignore_index=255)
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=0)


def test_cross_entropy_needs_no_classifier():
    class TwoHeads(Network):
        def forward(self, images: Tensor) -> Tensor:
            features = self.body(images)
            return resize(False)(self.classifier(features) + self.classifier(2 * features), images)

    model = TwoHeads()
    method = build_method(model, MethodSection(name="ce"))
    assert isinstance(method, CrossEntropy)
    assert method.loss_path() == (
        "loss: on the logits that the network returns, at full size (its classifier cannot be found)"
    )
    loss = method.loss(images(), labels(), StepContext(0, 0.5, 0, 255, None))
    torch.testing.assert_close(
        loss.total, F.cross_entropy(model(images()), labels(), ignore_index=255), rtol=1e-5, atol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lite0", "deeplabv3_mobilenet_v3_large", "hrnetv2_w18_small", "unet", "hourglass", "vgg_resnet"]
)
def test_the_packages_networks_stop_at_their_classifier(name: str):
    found = find_classifier(build_model(name, 4))
    assert (found.tail, found.non_negative, found.linear) == (None, True, True)


def test_hooks_do_not_stay():
    model = Network()
    method = DropClass(model)
    for resized in (True, False):
        method(images(), dropped=1, resized=resized)
    assert not model.classifier._forward_hooks
    assert not model.classifier._forward_pre_hooks
    assert model(images()).shape == (2, C, 33, 46)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
def test_compiled_passes_see_the_classifier_and_leave_the_network_as_it_was():
    model = Network()
    method = DropClass(model)
    total, expected = gradients(method, resized=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    with method.tap.compiled():
        for _ in range(2):
            again, found = gradients(method, resized=False)
        # What evaluates in the middle of training gets whole logits.
        assert model.eval()(images().double()).shape == (2, C, 33, 46)
    torch.testing.assert_close(again, total, rtol=1e-12, atol=0)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    assert not model.classifier._forward_hooks
    assert strip(method) is model
    assert type(model.classifier) is nn.Conv2d


@pytest.mark.parametrize("body_tail", [None, nn.Dropout2d(0.5), nn.Dropout(0.5)])
def test_the_gate_folds_into_the_convolution_when_features_are_never_negative(body_tail: nn.Module | None):
    assert DropClass(Network(body_tail=body_tail)).classifier.non_negative


def test_features_that_are_negative_in_training_keep_the_whole_gate():
    class Noise(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features - 1.0 if self.training else features

    assert not DropClass(Network(body_tail=Noise())).classifier.non_negative


def test_the_folded_gate_has_the_gradients_of_the_whole_one():
    method = DropClass(Network())
    _, folded = gradients(method, resized=False)
    object.__setattr__(method.classifier, "non_negative", False)
    _, whole = gradients(method, resized=False)
    for name, gradient in whole.items():
        torch.testing.assert_close(folded[name], gradient, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
