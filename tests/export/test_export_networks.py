import numpy as np
import pytest
import torch
from torch import nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.export.mask_head import MaskModel
from dropclass_deploy.export.networks import ResizedLogits, checked_classes, deployable, first_line, run_example


@pytest.mark.parametrize("kind", ["tensor", "dict", "attribute"])
def test_low_resolution_logits_come_at_input_size(networks, kind: str) -> None:
    logits = ResizedLogits(networks.LowResolution(kind)).eval()(torch.randn(2, 3, 21, 30))
    assert logits.shape == (2, 4, 21, 30)


def test_resize_is_half_pixel_bilinear(networks) -> None:
    model = networks.LowResolution("tensor").eval()
    images = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        small, large = model(images)[0, 0].double().numpy(), ResizedLogits(model)(images)[0, 0].numpy()
    centres = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)  # of output pixels, on a grid of 2
    weights = np.stack([1 - centres, centres], axis=1)
    # float32 interpolation of values of order 1 against float64: a few units in the last place
    np.testing.assert_allclose(large, weights @ small @ weights.T, atol=1e-6)


def test_logits_of_half_precision_become_float32() -> None:
    model = nn.Conv2d(3, 4, 1).to(torch.bfloat16)
    assert ResizedLogits(model)(torch.randn(1, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_deployable_leaves_the_module_alone(networks) -> None:
    model = networks.Tiny().double().train()
    model.classifier.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = deployable(model)
    twin(torch.randn(2, 3, 8, 8))
    assert not twin.training
    assert next(twin.parameters()).dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert model.training
    assert model.features[0].weight.requires_grad
    assert not model.classifier.weight.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.features[0].weight.dtype == torch.float64


def test_module_that_cannot_be_copied_is_refused(networks) -> None:
    model = networks.Tiny()
    model.history = model.classifier.weight * 2  # a tensor with history
    with pytest.raises(ModelError, match="the model Tiny cannot be copied"):
        deployable(model)


@pytest.mark.parametrize("channels", [0, 1, 256])
def test_class_counts_that_a_mask_cannot_hold_are_refused(channels: int) -> None:
    with pytest.raises(ModelError, match=f"logits of {channels} classes; expected 2 … 255"):
        checked_classes(channels)


def test_network_that_cannot_run_says_why() -> None:
    with pytest.raises(ModelError, match=r"cannot run on images of shape \(1, 3, 4, 4\): RuntimeError: Given groups=1"):
        run_example(nn.Conv2d(5, 4, 1), torch.randn(1, 3, 4, 4))


def test_first_line_takes_two_when_the_first_announces_the_second() -> None:
    assert first_line(ValueError("\n conflict:\n  height\n more")) == "conflict: height"
    assert first_line(ValueError("")) == "ValueError"


def test_mask_model_against_a_literal_loop(networks, preprocess: Preprocess) -> None:
    model = networks.Tiny().eval()
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    mask = MaskModel(model, preprocess).eval()(torch.from_numpy(image[None]))[0].numpy()
    pixels = np.empty((3, 5, 6))
    for channel in range(3):
        pixels[channel] = (image[..., channel] / 255 - preprocess.mean[channel]) / preprocess.std[channel]
    with torch.inference_mode():
        logits = deployable(model).double()(torch.from_numpy(pixels[None]))[0].numpy()
    assert mask.dtype == np.uint8
    # Float64 against float32: random logits whose two largest are closer than 1e-4 do not occur in these 30 pixels.
    np.testing.assert_array_equal(mask, logits.argmax(axis=0))


def test_mask_model_gives_ties_to_the_lowest_id(networks, preprocess: Preprocess) -> None:
    model = MaskModel(networks.ConstantLogits([0.0, 2.0, 2.0, 2.0]), preprocess)
    assert (model(torch.zeros(1, 3, 4, 3, dtype=torch.uint8)) == 1).all()
