"""Grad-CAM against Captum's."""

from __future__ import annotations

import warnings

import pytest
import torch
from attribution_cases import Small
from torch import Tensor, nn

from dropclass_deploy.analysis.grad_cam import class_maps
from dropclass_deploy.models import build_model
from dropclass_deploy.training.dropclass import find_classifier

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from captum.attr import LayerGradCam


class Summed(nn.Module):
    """Each class's score: its logits at the classifier's resolution, summed over the image."""

    def __init__(self, model: nn.Module, classifier: str) -> None:
        super().__init__()
        self.model, self.seen = model, torch.empty(0)
        model.get_submodule(classifier).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.seen = output

    def forward(self, images: Tensor) -> Tensor:
        self.model(images)
        return self.seen.sum(dim=(2, 3))


@pytest.mark.parametrize("name", ["small 1×1", "small 3×3", "lite0"])
@pytest.mark.filterwarnings("ignore")
def test_maps_are_captums(name: str) -> None:
    torch.manual_seed(0)
    model = {"small 1×1": lambda: Small(4, 1), "small 3×3": lambda: Small(4, 3)}.get(
        name, lambda: build_model("lite0", 4, width=8)
    )()
    model = model.double().eval()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    classifier = find_classifier(model)
    found = class_maps(model, classifier, images, range(4))
    assert found.max() > 0
    explained = LayerGradCam(Summed(model, classifier.path), model.get_submodule(classifier.path))
    for one in range(4):
        expected = explained.attribute(images, target=one, attribute_to_layer_input=True, relu_attributions=True)
        torch.testing.assert_close(found[:, one], expected[:, 0].detach(), rtol=1e-9, atol=1e-12)
