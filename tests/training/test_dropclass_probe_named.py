"""A classifier that is named: a convolution whatever follows it, a head only when it gives the logits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import Classifier, DropClass, dropclass_loss, find_classifier, fold


class Network(nn.Module):
    """Features at stride 4, a classifier, an auxiliary one that nothing uses, and what ``finish`` makes of the logits."""

    def __init__(self, finish=lambda logits, images: logits, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = classifier or nn.Conv2d(8, 5, 1)
        self.aux = nn.Conv2d(8, 5, 1)
        self.finish = finish

    def forward(self, images: Tensor):
        features = self.body(images)
        self.aux(features)
        return self.finish(self.classifier(features), images)


def network(*arguments) -> Network:
    torch.manual_seed(0)
    return Network(*arguments)


def twice(logits: Tensor, images: Tensor) -> Tensor:
    half = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    return F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)


TAILS = {
    "nearest": lambda logits, images: F.interpolate(logits, scale_factor=4, mode="nearest"),
    "bicubic": lambda logits, images: F.interpolate(logits, scale_factor=4, mode="bicubic"),
    "two bilinear steps": twice,
    "temperature": lambda logits, images: logits / 3,
    "crop": lambda logits, images: logits[:, :, 1:-1, 1:-1],
    "log-softmax": lambda logits, images: logits.log_softmax(1),
}


@pytest.mark.parametrize("tail", list(TAILS))
@pytest.mark.parametrize("start", ["as built", "zero"])
def test_a_named_convolution_may_be_followed_by_anything(tail: str, start: str):
    model = network(TAILS[tail])
    if start == "zero":
        nn.init.zeros_(model.classifier.weight)
    with pytest.raises(ModelError, match=r"none gives the logits .*classifier='path'"):
        find_classifier(model)
    tail = "something else than a bilinear resize follows the classifier"
    assert find_classifier(model, "classifier") == Classifier("classifier", 5, 8, None, True, True, tail)


@pytest.mark.parametrize("tail", list(TAILS))
def test_such_a_network_trains_and_folds(tail: str):
    method = DropClass(network(TAILS[tail]), "classifier").train()
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    out = method(images, 1)
    assert (out.drop_logits.shape, out.align_corners) == ((2, 5, 4, 6), None)
    terms = dropclass_loss(out, torch.randint(0, 5, (2, 16, 24)), progress=0.5)
    terms.total.backward()
    gradient = method.branch.conv.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    method.eval()
    with torch.no_grad():
        expected = TAILS[tail](method(images).drop_logits, images)
        # One 1×1 convolution in place of gate, convolution and BatchNorm: some roundings more in float32.
        torch.testing.assert_close(fold(method).eval()(images), expected, rtol=1e-4, atol=1e-5)


def test_the_only_candidate_is_named_in_the_error():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Softmax(1))
    with pytest.raises(ModelError, match=r"1 convolutions with 5 outputs \(0\).*classifier='0'"):
        find_classifier(model)
    assert find_classifier(model, "0").linear


def test_a_named_convolution_that_gives_the_logits_keeps_its_resize():
    def finish(logits: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=True)

    assert find_classifier(network(finish), "classifier").align_corners is True


def test_a_named_convolution_with_other_channels_is_refused():
    with pytest.raises(ModelError, match=r"the convolution 'body.0' has 8 outputs; expected 5, as many as the model's"):
        find_classifier(network(), "body.0")


def test_a_named_convolution_that_the_logits_do_not_come_from_is_refused():
    with pytest.raises(ModelError, match=r"the output of 'aux' is not the model's logits \(5 channels, 16×16\)"):
        find_classifier(network(), "aux")


def test_a_named_convolution_with_a_stride_is_refused_whatever_follows_it():
    model = network(TAILS["temperature"], nn.Conv2d(8, 5, 1, stride=2))
    with pytest.raises(ModelError, match=r"the classifier 'classifier' has stride \(2, 2\)"):
        find_classifier(model, "classifier")


@pytest.mark.parametrize("tail", list(TAILS))
def test_a_named_head_that_is_no_convolution_has_to_give_the_logits(tail: str):
    model = network(TAILS[tail], nn.Sequential(nn.Conv2d(8, 5, 1)))
    with pytest.raises(ModelError, match="the output of 'classifier' is not the model's logits"):
        find_classifier(model, "classifier")


def test_a_head_on_a_dict_of_features_is_refused_as_that():
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    with pytest.raises(
        ModelError, match=r"the classifier 'classifier' takes a dict; expected one feature tensor"
    ) as caught:
        find_classifier(model, "classifier")
    assert "\n" not in str(caught.value)


def test_added_heads_are_refused_as_that():
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)
    with pytest.raises(ModelError, match="a sum or mean of heads is not supported as one classifier"):
        find_classifier(model)


class Odd(nn.Module):
    """A head that takes and gives what ``call`` and ``answer`` say."""

    def __init__(self, call, answer=lambda logits: logits) -> None:
        super().__init__()
        self.body, self.head, self.call = nn.Conv2d(3, 8, 1), OddHead(answer), call

    def forward(self, images: Tensor) -> Tensor:
        result = self.call(self.head, self.body(images))
        return result if isinstance(result, Tensor) else next(iter(result))


class OddHead(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.conv, self.answer = nn.Conv2d(8, 5, 1), answer

    def forward(self, features, size=None):
        return self.answer(self.conv(features[0] if isinstance(features, list) else features))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (Odd(lambda head, x: head([x])), "takes a list"),
        (Odd(lambda head, x: head(x, (64, 64))), "takes 2 inputs"),
        (Odd(lambda head, x: head(features=x)), "takes its input by keyword"),
        (Odd(lambda head, x: head(x), lambda logits: (logits, 1)), "returns a tuple"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_head_that_the_branch_could_not_call_is_refused_with_the_reason(model: nn.Module, found: str):
    with pytest.raises(ModelError, match=f"the classifier 'head' {found}; expected one feature tensor"):
        find_classifier(model, "head")
