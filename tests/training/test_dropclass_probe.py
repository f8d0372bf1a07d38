"""Finding the classifier in networks of all sorts, and leaving them as they were."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from rounds import first_of
from torch import Tensor, nn
from torchvision.models.segmentation import (
    deeplabv3_mobilenet_v3_large,
    fcn_resnet50,
    lraspp_mobilenet_v3_large,
)

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import Classifier, DropClass, find_classifier


class Network(nn.Module):
    """Body → classifier → what ``finish`` makes of (logits, images)."""

    def __init__(self, classifier: nn.Module, finish=lambda logits, images: logits, body: nn.Module | None = None):
        super().__init__()
        self.body = body or nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = classifier
        self.finish = finish

    def forward(self, images: Tensor):
        return self.finish(self.classifier(self.body(images)), images)


def resize(align_corners: bool):
    def finish(logits: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)

    return finish


def test_plain_convolution():
    assert find_classifier(nn.Conv2d(3, 5, 1)) == Classifier("", 5, 3, None, True, False)


def test_low_resolution_logits():
    assert find_classifier(Network(nn.Conv2d(8, 5, 1))) == Classifier("classifier", 5, 8, None, True, True)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_models_own_resize_is_found(align_corners: bool):
    found = find_classifier(Network(nn.Conv2d(8, 5, 1), resize(align_corners)))
    assert (found.path, found.align_corners) == ("classifier", align_corners)


@pytest.mark.parametrize(
    "finish",
    [
        lambda logits, images: {"out": logits, "aux": logits * 2},
        lambda logits, images: {"logits": logits},
        lambda logits, images: SimpleNamespace(logits=logits),
    ],
    ids=["dict out", "dict logits", "object"],
)
def test_every_kind_of_output(finish):
    assert find_classifier(Network(nn.Conv2d(8, 5, 1), finish)).path == "classifier"


def test_the_auxiliary_head_with_as_many_classes_is_not_taken():
    class WithAux(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.main, self.aux = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            features = self.body(images)
            return {"out": self.main(features), "aux": self.aux(features)}

    assert find_classifier(WithAux()).path == "main"


def test_a_head_with_a_3x3_convolution_and_a_resize():
    head = nn.Sequential(nn.Conv2d(8, 5, 3, padding=1), nn.UpsamplingBilinear2d(scale_factor=4), nn.Identity())
    found = find_classifier(Network(head))
    assert (found.path, found.align_corners, found.linear) == ("classifier.0", True, True)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(8, 5, 1, padding="valid"),
        nn.Conv2d(8, 5, 3, padding="same"),
        nn.Conv2d(8, 5, 3, padding=2, dilation=2),
        nn.Conv2d(8, 5, (1, 3), padding=(0, 1), bias=False),
    ],
    ids=["1x1 valid", "3x3 same", "dilated", "1x3"],
)
def test_every_padding_that_keeps_the_size(convolution: nn.Conv2d):
    assert find_classifier(Network(convolution)).path == "classifier"


def test_dropout_between_activation_and_classifier():
    found = find_classifier(Network(nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(8, 5, 1))).train())
    assert (found.path, found.non_negative) == ("classifier.1", True)


@pytest.mark.parametrize(
    ("last", "non_negative"),
    [
        (nn.ReLU(inplace=True), True),
        (nn.ReLU6(), True),
        (nn.Sigmoid(), True),
        (nn.Hardswish(), False),
        (nn.BatchNorm2d(8), False),
        (nn.LeakyReLU(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whether_features_can_be_negative(last: nn.Module, non_negative: bool):
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), last)
    assert find_classifier(Network(nn.Conv2d(8, 5, 1), body=body)).non_negative is non_negative


def test_an_activation_elsewhere_says_nothing_about_the_features():
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return self.act(self.conv(images)).sub_(0.5)  # in place: the same storage, no longer ≥ 0

    assert not find_classifier(Network(nn.Conv2d(8, 5, 1), body=Shifted())).non_negative


def test_double_precision():
    model = Network(nn.Conv2d(8, 5, 1), resize(False)).double()
    assert find_classifier(model).path == "classifier"
    assert DropClass(model).branch.conv.weight.dtype == torch.float64


def test_half_precision():
    assert find_classifier(Network(nn.Conv2d(8, 5, 1), resize(True)).bfloat16()).align_corners is True


def test_an_example_with_other_channels():
    model = Network(nn.Conv2d(8, 5, 1), body=nn.Conv2d(7, 8, 1))
    with pytest.raises(ModelError, match=r"failed on an input \(1, 3, 64, 64\): .*example="):
        find_classifier(model)
    assert find_classifier(model, example=torch.randn(1, 7, 8, 8)).path == "classifier"
    with pytest.raises(ModelError, match=r"failed on an input \(1, 4, 8, 8\)"):
        find_classifier(model, example=torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize("build", first_of([deeplabv3_mobilenet_v3_large, fcn_resnet50]))
@pytest.mark.parametrize("aux", [False, True])
def test_torchvision(build, aux: bool):
    model = build(weights=None, weights_backbone=None, num_classes=5, aux_loss=aux)
    found = find_classifier(model)
    assert (found.path, found.num_classes, found.align_corners, found.non_negative) == ("classifier.4", 5, False, True)


def test_two_added_heads_are_refused_with_both_names():
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    with pytest.raises(
        ModelError, match=r"2 convolutions with 5 outputs \(classifier.low_classifier, classifier.high_classifier\)"
    ) as caught:
        find_classifier(model)
    assert "classifier='path'" in str(caught.value)
    assert "one head" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_added_in_place_does_not_pass_for_the_classifier():
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)

        def forward(self, images: Tensor) -> Tensor:
            logits = self.first(images)
            logits += self.second(images.flip(1))
            return logits

    with pytest.raises(ModelError, match=r"2 convolutions with 5 outputs \(first, second\)"):
        find_classifier(TwoHeads())


@pytest.mark.parametrize(
    "finish",
    [
        lambda logits, images: logits.softmax(1),
        lambda logits, images: F.interpolate(logits, scale_factor=4, mode="nearest"),
        lambda logits, images: logits * 2,
        lambda logits, images: logits.flip(3),
    ],
    ids=["softmax", "nearest", "scaled", "flipped"],
)
def test_logits_that_are_not_the_convolutions_output_are_refused(finish):
    with pytest.raises(ModelError, match=r"1 convolutions with 5 outputs \(classifier\), and none gives the logits"):
        find_classifier(Network(nn.Conv2d(8, 5, 1), finish))


def test_a_transposed_convolution_last_is_refused_with_what_to_name():
    model = Network(nn.ConvTranspose2d(8, 5, 4, stride=4))
    with pytest.raises(ModelError, match=r"no convolution with 5 outputs among 1, .*classifier='path'"):
        find_classifier(model)
    found = find_classifier(model, "classifier")
    assert (found.linear, found.channels, found.num_classes) == (False, 8, 5)


@pytest.mark.parametrize(
    ("convolution", "reason"),
    [
        (nn.Conv2d(8, 4, 1, stride=2), r"stride \(2, 2\)"),
        (nn.Conv2d(8, 4, 1, groups=2), "groups 2"),
        (nn.Conv2d(8, 4, 3), r"padding \(0, 0\) for kernel \(3, 3\)"),
        (nn.Conv2d(8, 4, 3, padding="valid"), r"padding valid for kernel \(3, 3\)"),
        (nn.Conv2d(8, 4, 3, stride=2, groups=4, padding=1), r"stride \(2, 2\) and groups 4"),
    ],
    ids=["stride", "groups", "no padding", "valid", "both"],
)
def test_convolutions_that_mix_or_skip_pixels_are_refused_with_the_reason(convolution: nn.Conv2d, reason: str):
    with pytest.raises(ModelError, match=f"the classifier 'classifier' has {reason}.*non-linear"):
        find_classifier(Network(convolution))


def test_the_refused_convolution_can_be_used_as_part_of_a_named_head():
    model = Network(nn.Sequential(nn.Conv2d(8, 4, 1, stride=2)))
    assert not find_classifier(model, "classifier").linear


def test_a_classifier_that_runs_twice_is_refused():
    class Twice(Network):
        def forward(self, images: Tensor) -> Tensor:
            self.classifier(self.body(images.flip(3)))
            return self.classifier(self.body(images))

    for path in (None, "classifier"):
        with pytest.raises(ModelError, match="'classifier' runs 2 times in one pass"):
            find_classifier(Twice(nn.Conv2d(8, 5, 1)), path)


def test_a_path_that_does_not_exist_lists_modules():
    with pytest.raises(ModelError, match=r"no module 'head'; expected for example body.0, classifier"):
        find_classifier(Network(nn.Conv2d(8, 5, 1)), "head")


def test_a_path_to_a_module_that_does_not_make_the_logits():
    with pytest.raises(ModelError, match=r"'body' is not the model's logits \(5 channels, 16×16\)"):
        find_classifier(Network(nn.Conv2d(8, 5, 1)), "body")


def test_a_path_to_a_module_that_does_not_run():
    model = Network(nn.Conv2d(8, 5, 1))
    model.unused = nn.Conv2d(8, 5, 1)
    with pytest.raises(ModelError, match="'unused' did not run"):
        find_classifier(model, "unused")


def test_a_named_convolution_is_linear_and_a_named_head_is_not():
    model = Network(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)), resize(True))
    assert find_classifier(model).path == "classifier.2"
    assert find_classifier(model, "classifier.2").linear
    head = find_classifier(model, "classifier")
    assert (head.linear, head.channels, head.align_corners) == (False, 8, True)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Flatten(), r"a tensor of shape \(1, 12288\)"),
        (Network(nn.Conv2d(8, 5, 1), lambda logits, images: [logits]), "list"),
        (Network(nn.Conv2d(8, 5, 1), lambda logits, images: {"mask": logits}), "dict"),
        (Network(nn.Conv2d(8, 5, 1), lambda logits, images: None), "NoneType"),
    ],
    ids=["two-dimensional", "list", "dict without out", "nothing"],
)
def test_outputs_without_logits_are_refused(model: nn.Module, found: str):
    with pytest.raises(ModelError, match=f"the model returned {found}; expected logits"):
        find_classifier(model)


def test_a_network_without_any_convolution():
    with pytest.raises(ModelError, match="no convolution with 3 outputs among 0"):
        find_classifier(nn.ReLU())
