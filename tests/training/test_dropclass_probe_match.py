"""Telling the classifier from its likes when the numbers of one pass do not: small, equal or constant logits, one size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.training.dropclass import find_classifier


def bilinear(logits: Tensor, images: Tensor, align_corners: bool) -> Tensor:
    return F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=align_corners)


class TwoOutputs(nn.Module):
    """Two classifiers on the same features; ``aux`` runs after ``main``, which makes the logits."""

    def __init__(self, std: float, align_corners: bool = False, stride: int = 4, bias: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=stride, padding=1), nn.ReLU())
        self.main, self.aux = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)
        self.align_corners = align_corners
        generator = torch.Generator().manual_seed(0)
        for head in (self.main, self.aux):
            nn.init.normal_(head.weight, std=std, generator=generator)
            nn.init.constant_(head.bias, bias)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images)
        heads = {"out": self.main(features), "aux": self.aux(features)}
        return {name: bilinear(logits, images, self.align_corners) for name, logits in heads.items()}


class Tail(nn.Module):
    """A 1×1 classifier on features at stride 4, and what ``finish`` makes of its logits."""

    def __init__(self, finish, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
        self.head = head or nn.Conv2d(8, 5, 1)
        self.finish = finish

    def forward(self, images: Tensor) -> Tensor:
        return self.finish(self.head(self.body(images)), images)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("bias", [0.0, 1000.0])
@pytest.mark.parametrize("std", [0.0, 1e-30, 1e-5, 1.0])
def test_equal_or_small_heads_do_not_hide_the_classifier_nor_its_resize(std: float, bias: float, align_corners: bool):
    found = find_classifier(TwoOutputs(std, align_corners, bias=bias))
    assert (found.path, found.align_corners) == ("main", align_corners)


def test_heads_with_equal_weights_are_told_apart():
    model = TwoOutputs(1.0)
    model.aux.load_state_dict(model.main.state_dict())
    assert find_classifier(model).path == "main"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_zero_heads_in_other_dtypes(dtype: torch.dtype):
    assert find_classifier(TwoOutputs(0.0, True).to(dtype)).align_corners is True


def test_logits_resized_in_float32_after_a_bfloat16_network():
    model = Tail(lambda logits, images: bilinear(logits.float(), images, True)).bfloat16()
    found = find_classifier(model)
    assert (found.path, found.align_corners) == ("head", True)


@pytest.mark.parametrize("scale", [0.0, 1e-6])
@pytest.mark.parametrize(
    "finish",
    [lambda logits, images: 2 * logits, lambda logits, images: logits.flip(3), lambda logits, images: logits.relu()],
    ids=["scaled", "flipped", "clipped"],
)
def test_a_zero_start_does_not_hide_what_follows_the_classifier(finish, scale: float):
    model = Tail(finish)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(scale)
    with pytest.raises(ModelError, match=r"1 convolutions with 5 outputs \(head\), and none gives the logits"):
        find_classifier(model)


@pytest.mark.parametrize("zero", ["first", "second"])
def test_an_added_head_that_starts_at_zero_is_part_of_the_logits(zero: str):
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 5, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.first(images) + self.second(images.flip(1))

    model = Sum()
    with torch.no_grad():
        for parameter in model.get_submodule(zero).parameters():
            parameter.zero_()
    with pytest.raises(ModelError, match=r"2 convolutions with 5 outputs .*a sum or mean of heads is not supported"):
        find_classifier(model)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("std", [0.0, 1.0])
def test_the_resize_of_one_pixel_maps_shows_at_a_larger_size(align_corners: bool, std: float):
    model = TwoOutputs(std, align_corners, stride=64)
    with torch.no_grad():
        assert model.body(torch.zeros(1, 3, 64, 64)).shape[-2:] == (1, 1)
    assert find_classifier(model).align_corners is align_corners
    assert find_classifier(model, example=torch.zeros(1, 3, 200, 200)).align_corners is align_corners


def test_a_map_that_is_always_one_pixel_counts_as_resized_without_aligned_corners():
    model = Tail(lambda logits, images: bilinear(logits, images, True))
    model.body.append(nn.AdaptiveAvgPool2d(1))
    assert find_classifier(model).align_corners is False


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_resize_only_at_sizes_that_the_stride_does_not_divide_is_found(align_corners: bool):
    def finish(logits: Tensor, images: Tensor) -> Tensor:
        return logits if logits.shape[-2:] == images.shape[-2:] else bilinear(logits, images, align_corners)

    up = nn.Sequential(nn.Upsample(scale_factor=4), nn.Conv2d(8, 5, 1))
    found = find_classifier(Tail(finish, up))
    assert (found.path, found.align_corners) == ("head.1", align_corners)
    assert find_classifier(Tail(finish, up), example=torch.zeros(1, 3, 8, 8)).align_corners is None  # the size given


def test_a_network_that_takes_the_first_size_only_keeps_what_that_showed():
    def finish(logits: Tensor, images: Tensor) -> Tensor:
        if images.shape[-2:] != (64, 64):
            raise ValueError("64×64 only")
        return logits

    assert find_classifier(Tail(finish)).align_corners is None


@pytest.mark.parametrize(
    ("last", "non_negative"),
    [
        (lambda act, x: act(x), True),
        (lambda act, x: act(x).add_(0), False),
        (lambda act, x: F.relu(x), False),
        (lambda act, x: act(x) + 0, False),
    ],
    ids=["untouched", "changed in place", "functional", "another tensor"],
)
@pytest.mark.parametrize("inference", [False, True], ids=["normal", "inference mode"])
def test_only_an_activation_that_nothing_changed_since_makes_features_non_negative(last, non_negative, inference):
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 8, 1), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            return last(self.act, self.conv(images))

    model = Tail(lambda logits, images: logits)
    model.body = Body()
    with torch.inference_mode(inference):
        assert find_classifier(model).non_negative is non_negative


def test_a_subclass_of_an_activation_is_not_trusted():
    class Shifted(nn.ReLU):
        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features) + 0  # what it adds may change

    model = Tail(lambda logits, images: logits)
    model.body[1] = Shifted()
    assert not find_classifier(model).non_negative


def test_features_made_in_inference_mode_count_as_signed():
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 8, 1), nn.ReLU()

        def forward(self, images: Tensor) -> Tensor:
            with torch.inference_mode():
                return self.act(self.conv(images))

    model = Tail(lambda logits, images: logits)
    model.body = Frozen()
    assert not find_classifier(model).non_negative
