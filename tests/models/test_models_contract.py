"""One contract for every network by name: a new one gets these tests free."""

import inspect

import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models import build_model, default_preprocess, model_names
from dropclass_deploy.training.dropclass import DropClass, strip


def images(count: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# Of timm's: one with TensorFlow's padding, one whose images must be multiples of 32, one that gives (N, H, W, K).
TIMM = ("timm:tf_mobilenetv3_small_minimal_100", "timm:test_convnext", "timm:test_mambaout")
FACTORY = "python:factories_for_tests:tiny"


@pytest.fixture(scope="module", params=[*model_names(), *TIMM, FACTORY])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def evaluated(name: str) -> nn.Module:
    """With 5 classes, in eval mode; not to be changed."""
    torch.manual_seed(0)
    return build_model(name, num_classes=5, weights=None).eval()


@pytest.fixture
def model(name: str) -> nn.Module:
    """A fresh one with 3 classes, in training mode."""
    torch.manual_seed(0)
    return build_model(name, num_classes=3, weights=None).train()


class TestEveryModel:
    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (32, 128), (33, 33), (96, 70), (1, 1), (1, 40), (7, 3)])
    def test_logits_have_the_size_of_the_images(self, evaluated: nn.Module, size: tuple[int, int]):
        with torch.no_grad():
            logits = evaluated(images(1, *size))
        assert isinstance(logits, Tensor)
        assert logits.shape == (1, 5, *size)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    @pytest.mark.parametrize("num_classes", [2, 255])
    def test_any_number_of_classes(self, name: str, num_classes: int):
        model = build_model(name, num_classes=num_classes).eval()
        with torch.no_grad():
            assert model(images(1, 32, 32)).shape == (1, num_classes, 32, 32)

    def test_equal_seeds_give_equal_weights(self, name: str, model: nn.Module):
        torch.manual_seed(0)
        twin = build_model(name, num_classes=3)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True)
        )

    def test_eval_is_deterministic(self, evaluated: nn.Module):
        with torch.no_grad():
            assert torch.equal(evaluated(images(2)), evaluated(images(2)))

    def test_eval_treats_each_image_by_itself(self, evaluated: nn.Module):
        with torch.no_grad():
            together = evaluated(images(2))
            alone = torch.cat([evaluated(image[None]) for image in images(2)])
        # Convolutions of another batch size may sum in another order, in float32 and over some fifty layers; an HRNet with
        # random weights and no statistics yet has logits of a thousand, whose rounding is that much larger.
        largest = max(1.0, float(alone.abs().max()))
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4 * largest)

    def test_gradient_reaches_every_parameter(self, model: nn.Module):
        (model(images(2)) * torch.randn(2, 3, 64, 64)).sum().backward()
        missing = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.any()]
        assert missing == []

    def test_the_images_are_not_changed(self, evaluated: nn.Module):
        given = images(1)
        with torch.no_grad():
            evaluated(given)
        assert torch.equal(given, images(1))

    def test_dropclass_finds_the_classifier(self, evaluated: nn.Module):
        found = DropClass(evaluated).classifier
        assert found.linear
        assert found.num_classes == 5
        assert found.align_corners in (False, None)  # None: its logits have the images' size already
        assert found.non_negative  # the folded head stays K → K
        assert evaluated.get_submodule(found.path).out_channels == 5

    def test_strip_gives_the_model_back_bit_for_bit(self, evaluated: nn.Module):
        before = {key: value.clone() for key, value in evaluated.state_dict().items()}
        with torch.no_grad():
            expected = evaluated(images(1))
            method = DropClass(evaluated).eval()
            assert torch.equal(method(images(1), dropped=1).logits, expected)
            assert strip(method) is evaluated
            assert torch.equal(strip(method)(images(1)), expected)
        assert list(evaluated.state_dict()) == list(before)
        assert all(torch.equal(value, before[key]) for key, value in evaluated.state_dict().items())

    def test_a_dropclass_step_in_training_mode(self, model: nn.Module):
        method = DropClass(model).train()
        out = method(images(2), dropped=1)
        (out.logits.square().mean() + out.drop_logits.square().mean()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in method.parameters())

    def test_the_state_dict_round_trip(self, name: str, evaluated: nn.Module):
        torch.manual_seed(1)
        other = build_model(name, num_classes=5).eval()
        other.load_state_dict(evaluated.state_dict())
        with torch.no_grad():
            assert torch.equal(other(images(1)), evaluated(images(1)))

    def test_preprocess_is_known(self, name: str):
        assert isinstance(default_preprocess(name), Preprocess)

    @pytest.mark.parametrize("num_classes", [1, 0, -3, 256, 2.5, "3", None, True])
    def test_a_class_count_out_of_range_is_refused(self, name: str, num_classes: object):
        with pytest.raises(ModelError, match=r"num_classes is .*; expected 2 … 255"):
            build_model(name, num_classes=num_classes)  # type: ignore[arg-type]

    def test_an_unknown_option_is_refused(self, name: str):
        # A user's factory has Python's words.
        message = (
            "unexpected keyword argument 'colour'" if name == FACTORY else f"{name} has no option 'colour'; expected"
        )
        with pytest.raises(ModelError, match=message):
            build_model(name, num_classes=3, colour=4)

    def test_unknown_weights_are_refused_with_what_there_is(self, name: str):
        with pytest.raises(
            ModelError, match=r"no weights 'IMAGENET9000' for this model; expected one of .*package:NAME"
        ):
            build_model(name, num_classes=3, weights="IMAGENET9000")

    def test_a_missing_weight_file_is_refused(self, name: str):
        with pytest.raises(ModelError, match=r"there is no weight file nowhere/at-all\.pth"):
            build_model(name, num_classes=3, weights="nowhere/at-all.pth")


def test_an_unknown_model_is_refused_with_the_names():
    for call in (lambda: build_model("resnet", num_classes=3), lambda: default_preprocess("resnet")):
        with pytest.raises(ModelError, match=r"there is no model 'resnet'; expected one of .*lite0"):
            call()


def test_the_promised_names_are_there():
    promised = {"lite0", "deeplabv3_mobilenet_v3_large", "hrnetv1_w18_small", "hrnetv2_w18_small", "unet"}
    promised |= {"hourglass", "vgg_resnet"}
    assert promised <= set(model_names())


def test_build_model_takes_what_the_readme_says():
    assert list(inspect.signature(build_model).parameters)[:3] == ["name", "num_classes", "weights"]


@pytest.mark.parametrize("width", [7, 1025, 64.0, "64", None, True])
def test_lite0_refuses_a_decoder_width_out_of_range(width: object):
    with pytest.raises(ModelError, match=r"width is .*; expected 8 … 1024 decoder channels"):
        build_model("lite0", num_classes=3, width=width)


def test_lite0_width_is_that_of_the_classifiers_input():
    assert DropClass(build_model("lite0", num_classes=3, width=24)).classifier.channels == 24
