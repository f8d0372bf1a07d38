"""Grad-CAM's maps: autograd in float64 as the oracle, taps at the border, what is left behind in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_cases import PLAIN, Small, TwoHeads, random_pictures, subject_of
from torch import nn

from dropclass_deploy.analysis.grad_cam import class_maps, maps_on_image
from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.training.dropclass import Classifier, find_classifier


def by_autograd(model: Small, images: torch.Tensor, classes, pixels=None) -> torch.Tensor:
    """Literally Eq. 1 and 2, a class and an image at a time."""
    result = []
    for image in images:
        features = model.body(image[None]).detach().requires_grad_()
        logits = model.head(features)[0]
        for one in classes:
            score = (logits[one] if pixels is None else logits[one][pixels]).sum()
            gradient = torch.autograd.grad(score, features, retain_graph=True)[0][0]
            total = sum(gradient[k].mean() * features[0, k] for k in range(features.shape[1]))
            result.append(torch.clamp(total, min=0).detach())
    return torch.stack(result).reshape(len(images), len(classes), *result[0].shape)


def batch(height: int = 13, width: int = 10, seed: int = 3) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 2), (3, 9)])
def test_closed_form_is_autograd(taps: int, dilation: int) -> None:
    model = Small(4, taps).double().eval()
    if dilation > 1:
        model.head = nn.Conv2d(6, 4, taps, padding=dilation * (taps // 2), dilation=dilation).double()
    classifier = Classifier("head", 4, 6, False, linear=True, non_negative=True)
    expected = by_autograd(model, batch(), [2, 0])
    assert expected.max() > 0
    torch.testing.assert_close(class_maps(model, classifier, batch(), [2, 0]), expected, rtol=1e-10, atol=1e-12)


def test_closed_form_of_a_pixel_set_at_the_border() -> None:
    model = Small(3, 3).double().eval()
    pixels = torch.zeros(7, 5, dtype=torch.bool)
    pixels[0, 1:4] = pixels[6, 4] = True
    classifier = Classifier("head", 3, 6, False, linear=True, non_negative=True)
    expected = by_autograd(model, batch(), [1], pixels)
    found = class_maps(model, classifier, batch(), [1], pixels=pixels)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_an_even_same_padding_puts_the_odd_place_last() -> None:
    model = Small(3, 1).double().eval()
    model.head = nn.Conv2d(6, 3, 2, padding="same").double()
    classifier = Classifier("head", 3, 6, False, linear=True, non_negative=True)
    expected = by_autograd(model, batch(), [0, 1, 2])
    torch.testing.assert_close(class_maps(model, classifier, batch(), [0, 1, 2]), expected, rtol=1e-10, atol=1e-12)


def test_reflected_padding_has_no_closed_form_and_is_right_all_the_same() -> None:
    model = Small(3, 1).double().eval()
    model.head = nn.Conv2d(6, 3, 3, padding=1, padding_mode="reflect").double()
    classifier = Classifier("head", 3, 6, False, linear=True, non_negative=True)
    expected = by_autograd(model, batch(), [0, 1])
    torch.testing.assert_close(class_maps(model, classifier, batch(), [0, 1]), expected, rtol=1e-10, atol=1e-12)


def test_general_case_is_the_closed_form_where_both_hold() -> None:
    model = Small(4, 3).double().eval()
    linear = Classifier("head", 4, 6, False, linear=True, non_negative=True)
    other = Classifier("head", 4, 6, False, linear=False, non_negative=True)
    pixels = torch.rand(7, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    for chosen in (None, pixels):
        closed = class_maps(model, linear, batch(), [3, 1], pixels=chosen)
        general = class_maps(model, other, batch(), [3, 1], pixels=chosen)
        torch.testing.assert_close(general, closed, rtol=1e-10, atol=1e-12)


def test_a_named_layer_sums_the_networks_own_logits() -> None:
    model = Small(3).double().eval()
    images = batch()
    features = model.body[0](images).detach().requires_grad_()
    # The module after it works in place: the oracle must not.
    logits = model.head(model.body[1](features).relu())
    logits = nn.functional.interpolate(logits, (13, 10), mode="bilinear", align_corners=False)
    gradient = torch.autograd.grad(logits[:, 1].sum(), features)[0]
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).relu().detach()
    found = class_maps(model, None, images, [1], layer="body.0")
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-10, atol=1e-12)


def test_the_model_is_left_as_it_was() -> None:
    model = Small(3)
    model.train()
    model.body[1].eval()
    model.head.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asking = [one.requires_grad for one in model.parameters()]
    linear = Classifier("head", 3, 6, False, linear=True, non_negative=True)
    with torch.inference_mode():
        images = torch.randn(1, 3, 8, 8)
        class_maps(model, linear, images, [0])
        class_maps(model, None, images, [0], layer="body")
    assert [one.requires_grad for one in model.parameters()] == asking
    assert model.training
    assert not model.body[1].training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())


def test_a_missing_classifier_asks_for_a_layer() -> None:
    with pytest.raises(ModelError, match="name a layer"):
        class_maps(TwoHeads(3).eval(), None, torch.zeros(1, 3, 4, 4), [0])


def test_a_layer_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match="no module 'neck'"):
        class_maps(Small(3).eval(), None, torch.zeros(1, 3, 4, 4), [0], layer="neck")


def test_a_layer_that_the_logits_do_not_need_is_refused() -> None:
    class Aside(Small):
        def forward(self, images):
            self.aside(images)
            return super().forward(images)

    model = Aside(3).eval()
    model.aside = nn.Conv2d(3, 2, 1)
    with pytest.raises(ModelError, match="do not depend on 'aside'"):
        class_maps(model, None, torch.zeros(1, 3, 4, 4), [0], layer="aside")


def test_maps_on_an_image_have_its_size_whatever_the_network_sees() -> None:
    model = Small(3)
    data = random_pictures([(21, 34)])
    for change in ({}, {"size": (16, 24)}, {"window": Window(height=16, width=16, overlap=0.5)}):
        subject = subject_of(model, data.classes, preprocess=PLAIN.model_copy(update=change))
        maps = maps_on_image(subject, data.image(0), [0, 2])
        assert maps.shape == (2, 21, 34)
        assert (maps >= 0).all()
        assert np.isfinite(maps).all()


def test_windows_of_a_1x1_classifier_blend_to_the_map_of_the_whole() -> None:
    # A network that sees one pixel at a time is the same in every window.
    class Pixelwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.body, self.head = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1)

        def forward(self, images):
            return self.head(self.body(images).relu())

    data = random_pictures([(20, 27)])
    whole = subject_of(Pixelwise(), data.classes)
    window = PLAIN.model_copy(update={"window": Window(height=8, width=12, overlap=0.25, blending="gaussian")})
    cut = subject_of(whole.model, data.classes, preprocess=window)
    assert find_classifier(whole.model).linear
    np.testing.assert_allclose(
        maps_on_image(cut, data.image(0), [1]), maps_on_image(whole, data.image(0), [1]), rtol=1e-5, atol=1e-6
    )
