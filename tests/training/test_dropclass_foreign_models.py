"""DropClass on networks of other libraries, one contract for all: forward, backward, strip, export."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

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
ENCODER = "tu-test_efficientnet"  # timm's smallest with five strides


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
    "torchvision deeplabv3": Foreign(torchvision("deeplabv3_resnet50", aux=False), "classifier.4", False),
    # One with the auxiliary head and one without: the two networks share it. Its logits are the caller's to use; the loss
    # of DropClass knows "out" alone.
    "torchvision fcn, aux": Foreign(torchvision("fcn_resnet50", aux=True), "classifier.4", False, "aux_classifier"),
    "smp Unet": Foreign(smp_model("Unet", decoder_channels=(32, 24, 16, 12, 8)), "segmentation_head.0", None),
    "smp FPN": Foreign(
        smp_model("FPN", decoder_pyramid_channels=16, decoder_segmentation_channels=32), "segmentation_head.0", True
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


def hooks(model: nn.Module) -> list[tuple[int, int]]:
    return [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]


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
    with torch.no_grad():
        assert torch.equal(logits_of(stripped(images())), logits_of(fresh(images())))
    # transformers hooks its own modules at the first pass; what the wrapper left would come on top.
    assert hooks(stripped) == hooks(fresh)


@pytest.fixture(scope="module")
def exported(case: Case, tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    """The stripped network at a fixed size: the question is whether a foreign network goes through at all."""
    path = tmp_path_factory.mktemp("foreign") / "model.onnx"
    export_logits(strip(case.method), path, shape=(2, *SIZE))
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_the_exported_model_gives_the_same_logits(case: Case, exported: onnxruntime.InferenceSession):
    found = torch.from_numpy(exported.run(["logits"], {"image": images().numpy()})[0])
    with torch.no_grad():
        logits = logits_of(case.model(images()))
        if logits.shape[-2:] != SIZE:  # Segformer of transformers stops at a quarter; the exporter resizes
            logits = nn.functional.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False)
    assert found.shape == (2, CLASSES, *SIZE)
    assert found.isfinite().all()
    # Other kernels sum in another order, in float32 and over up to a hundred layers: relative to the largest logit.
    assert (found - logits).abs().max() <= 1e-4 * logits.abs().max()


def test_lraspp_adds_two_heads_and_is_refused_with_both_names():
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    with pytest.raises(ModelError, match="cannot be found: 2 convolutions with 4 outputs") as caught:
        DropClass(model)
    message = str(caught.value)
    assert "(classifier.low_classifier, classifier.high_classifier)" in message
    assert "name the module that makes the logits: DropClass(model, classifier='path')" in message
    assert "\n" not in message


def test_one_of_lraspps_heads_can_be_named():
    """The logits of the branch are then those of that head alone, which the caller has to want."""
    model = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    method = DropClass(model, classifier="classifier.high_classifier").eval()
    with torch.no_grad():
        out = method(images(), dropped=1)
    assert out.drop_logits.shape == (2, CLASSES, 8, 12)  # at its own stride of 8
