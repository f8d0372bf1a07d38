"""HRNet against timm's own, and at sizes that timm's own refuses."""

import pytest
import timm
import torch
from torch import Tensor, nn

from dropclass_deploy.models import build_model

PAIRS = [("hrnetv1_w18_small", "hrnet_w18_small"), ("hrnetv2_w18_small", "hrnet_w18_small_v2")]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: pair[0])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """Our encoder, and timm's with the same numbers."""
    ours, theirs = request.param
    torch.manual_seed(0)
    model = build_model(ours, num_classes=4)
    reference = timm.create_model(theirs, features_only=True, feature_location="", out_indices=(1, 2, 3, 4))
    reference.load_state_dict(model.encoder.state_dict(), strict=True)
    return model, reference


def images(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def test_the_streams_are_timms_bit_for_bit(pair: tuple[nn.Module, nn.Module]):
    model, reference = pair
    for mode in (True, False):
        with torch.no_grad():
            ours, theirs = model.encoder.train(mode)(images(64, 96)), reference.train(mode)(images(64, 96))
        assert [tuple(one.shape[-2:]) for one in ours] == [(16, 24), (8, 12), (4, 6), (2, 3)]
        assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


def test_other_sizes_round_up_where_timm_refuses(pair: tuple[nn.Module, nn.Module]):
    model, reference = pair
    with torch.no_grad(), pytest.raises(RuntimeError, match="must match"):
        reference.eval()(images(61, 97))
    with torch.no_grad():
        assert [tuple(one.shape[-2:]) for one in model.eval().encoder(images(61, 97))] == [
            (16, 25),
            (8, 13),
            (4, 7),
            (2, 4),
        ]


def test_the_head_is_that_of_hrnetv2(pair: tuple[nn.Module, nn.Module]):
    model, _ = pair
    channels = sum({"16": (16, 32, 64, 128), "18": (18, 36, 72, 144)}[str(model.encoder.feature_info.channels()[0])])
    convolution, norm, relu = model.decoder.fuse
    assert (convolution.in_channels, convolution.out_channels, convolution.kernel_size) == (channels, channels, (1, 1))
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)
    assert (model.classifier.in_channels, model.classifier.out_channels) == (channels, 4)


def test_the_classification_networks_channel_raising_modules_are_not_there(pair: tuple[nn.Module, nn.Module]):
    assert not any("incre" in key for key in pair[0].state_dict())
