"""DropClass on networks of other libraries, one contract for all: forward, backward, strip, export."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision.models import segmentation
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.export.to_onnx import export_logits
from dropclass_deploy.models import logits_of
from dropclass_deploy.training.dropclass import DropClass, dropclass_loss, strip

CLASSES = 4
SIZE = (64, 96)
ENCODER = "timm-mobilenetv3_small_minimal_100"


@dataclass(frozen=True)
class Foreign:
    """A network that is not ours: how it is built, where its classifier is, and the parameters that no logit needs."""

    build: Callable[[], nn.Module]
    classifier: str
    align_corners: bool | None
    unused: str = "-"


def torchvision(name: str, aux: bool) -> Callable[[], nn.Module]:
    build = getattr(segmentation, name)
    return lambda: build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=aux)


def smp_model(name: str, **options: object) -> Callable[[], nn.Module]:
    options = {"encoder_name": ENCODER, "encoder_weights": None, "classes": CLASSES} | options
    return lambda: getattr(smp, name)(**options)


def transformers_segformer() -> nn.Module:
    config = SegformerConfig(
        num_labels=CLASSES, depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2], drop_path_rate=0.0,
    )  # fmt: skip
    return SegformerForSemanticSegmentation(config)


MODELS = {
    "torchvision fcn": Foreign(torchvision("fcn_resnet50", aux=False), "classifier.4", False),
    "torchvision deeplabv3": Foreign(torchvision("deeplabv3_resnet50", aux=False), "classifier.4", False),
    # The auxiliary head's logits are the caller's to use; the loss of DropClass knows "out" alone.
    "torchvision fcn, aux": Foreign(torchvision("fcn_resnet50", aux=True), "classifier.4", False, "aux_classifier"),
    "torchvision deeplabv3, aux": Foreign(
        torchvision("deeplabv3_resnet50", aux=True), "classifier.4", False, "aux_classifier"
    ),
    "smp Unet": Foreign(smp_model("Unet", decoder_channels=(32, 24, 16, 12, 8)), "segmentation_head.0", None),
    "smp FPN": Foreign(
        smp_model("FPN", decoder_pyramid_channels=16, decoder_segmentation_channels=8), "segmentation_head.0", True
    ),
    "smp DeepLabV3Plus": Foreign(smp_model("DeepLabV3Plus", decoder_channels=16), "segmentation_head.0", True),
    "smp UPerNet": Foreign(smp_model("UPerNet", decoder_channels=16), "segmentation_head.0", True),
    "smp Segformer": Foreign(smp_model("Segformer", decoder_segmentation_channels=16), "segmentation_head.0", True),
    "transformers Segformer": Foreign(transformers_segformer, "decode_head.classifier", None),
}


@dataclass(frozen=True)
class Case:
    foreign: Foreign
    model: nn.Module
    method: DropClass


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest) -> Case:
    """Built once; tests that change it work on a copy."""
    torch.manual_seed(0)
    foreign = MODELS[request.param]
    model = foreign.build().eval()
    return Case(foreign, model, DropClass(model).eval())


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def test_the_classifier_is_found(case: Case):
    found = case.method.classifier
    assert (found.path, found.num_classes, found.linear) == (case.foreign.classifier, CLASSES, True)
    assert found.align_corners is case.foreign.align_corners


def test_forward_with_each_class_dropped_and_with_none(case: Case):
    with torch.no_grad():
        expected = logits_of(case.model(images()))
        outs = [case.method(images(), dropped=dropped) for dropped in (None, *range(CLASSES))]
    assert all(torch.equal(out.logits, expected) for out in outs)
    assert all(out.drop_logits.shape[:2] == (2, CLASSES) and out.drop_logits.isfinite().all() for out in outs)
    assert not any(torch.equal(outs[0].drop_logits, out.drop_logits) for out in outs[1:])


def test_every_parameter_that_makes_logits_gets_a_finite_gradient(case: Case):
    method = copy.deepcopy(case.method).train()
    labels = torch.randint(0, CLASSES, (2, *SIZE), generator=torch.Generator().manual_seed(2))
    dropclass_loss(method(images(), dropped=1), labels, progress=0.5).total.backward()
    used = {name: p for name, p in method.named_parameters() if not name.startswith(f"model.{case.foreign.unused}")}
    assert [name for name, p in used.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert method.branch.conv.weight.grad.any()
    assert method.head.weight.grad.any()


def test_strip_gives_the_model_back_bit_for_bit(case: Case):
    fresh = case.foreign.build().eval()
    fresh.load_state_dict(case.model.state_dict())
    stripped = strip(case.method)
    assert stripped is case.model
    assert list(stripped.state_dict()) == list(fresh.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in stripped.modules())
    with torch.no_grad():
        assert torch.equal(logits_of(stripped(images())), logits_of(fresh(images())))


def test_the_stripped_model_exports(case: Case, tmp_path: Path):
    # A fixed size: what this file asks is whether a stripped foreign network goes through at all.
    export_logits(strip(case.method), tmp_path / "model.onnx", shape=(2, *SIZE))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(["logits"], {"image": images().numpy()})[0])
    with torch.no_grad():
        logits = logits_of(case.model(images()))
        if logits.shape[-2:] != SIZE:  # Segformer of transformers stops at a quarter; the exporter resizes
            logits = nn.functional.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)
    assert found.shape == (2, CLASSES, *SIZE)
    # Other kernels sum in another order, in float32 and over up to a hundred layers: relative to the largest logit.
    assert (found - logits).abs().max() <= 1e-4 * logits.abs().max()
    assert np.isfinite(found.numpy()).all()


def test_lraspp_adds_two_heads_and_is_refused_with_both_names():
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    with pytest.raises(ModelError, match="cannot be found: 2 convolutions with 4 outputs") as caught:
        DropClass(model)
    message = str(caught.value)
    assert "(classifier.low_classifier, classifier.high_classifier)" in message
    assert "name the module that makes the logits: DropClass(model, classifier='path')" in message
    assert "\n" not in message


def test_lraspp_works_with_its_whole_head_named():
    """Its head takes a dict: what to name instead is said."""
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    with pytest.raises(ModelError, match="classifier"):
        DropClass(model, classifier="classifier")
