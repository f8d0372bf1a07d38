"""``timm:NAME``: names, levels, sizes and layouts of timm's backbones."""

import pytest
import timm
import torch
from torch import Tensor

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.models import build_model, default_preprocess
from dropclass_deploy.models.encoders import timm_encoder


def images(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:resnet_18",
            r"timm has no backbone 'resnet_18'; expected one of timm.list_models\(\), such as .*resnet18",
        ),
        ("timm:resnet18.imagenet9000", r"no backbone 'resnet18.imagenet9000'; expected .*such as .*resnet18.a1_in1k"),
        ("timm:", r"timm has no backbone ''; expected one of timm.list_models\(\)"),
        ("timm:test_vit", r"timm's test_vit gives feature maps of one stride only \(16\); expected .* resnet18"),
    ],
)
def test_each_mistake_is_one_clear_line(name: str, message: str):
    with pytest.raises(ModelError, match=message):
        build_model(name, num_classes=3)


def test_names_with_a_tag_are_the_same_network():
    assert list(build_model("timm:resnet18.a1_in1k", 3).state_dict()) == list(
        build_model("timm:resnet18", 3).state_dict()
    )


def test_the_normalisation_is_that_of_timms_weights():
    half, zero = default_preprocess("timm:tf_efficientnet_lite0"), default_preprocess("timm:mobilevit_xxs")
    assert (half.mean, half.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (zero.mean, zero.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="timm has no backbone 'nothing_like_it'"):
        default_preprocess("timm:nothing_like_it")


@pytest.mark.parametrize("name", ["test_convnext", "test_mambaout"])
def test_at_a_multiple_of_the_stride_the_maps_are_timms_bit_for_bit(name: str):
    encoder = timm_encoder(name).eval()
    with torch.no_grad():
        ours, theirs = encoder(images(64, 96)), encoder.backbone(images(64, 96))
    if name == "test_mambaout":
        theirs = [one.permute(0, 3, 1, 2) for one in theirs]
    assert [one.shape[1] for one in ours] == encoder.channels
    assert all(torch.equal(one, two) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("name", "multiple"),
    [("resnet18", 1), ("tf_mobilenetv3_small_minimal_100", 1), ("test_convnext", 32), ("hrnet_w18_small", 32)],
)
def test_other_sizes_are_enlarged_only_where_the_backbone_needs_it(name: str, multiple: int):
    encoder = timm_encoder(name).eval()
    assert encoder.multiple == multiple
    with torch.no_grad():
        sizes = [tuple(one.shape[-2:]) for one in encoder(images(33, 70))]
    expected = {1: (9, 18), 32: (16, 24)}[multiple]  # ⌈33/4⌉×⌈70/4⌉, and a quarter of 64×96
    assert sizes[0] == expected


def test_the_random_state_is_only_used_for_the_weights():
    torch.manual_seed(0)
    timm.create_model("resnet18", features_only=True)
    timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    expected = torch.rand(3)
    torch.manual_seed(0)
    timm_encoder("resnet18")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_levels_can_be_chosen():
    assert timm_encoder("resnet18").channels == [64, 128, 256, 512]
    assert timm_encoder("resnet18", [0, 2]).channels == [64, 128]
    assert timm_encoder("vgg11").channels == [256, 512, 512, 512]
    # timm numbers the maps of DLA from its full resolution on, which it gives only when asked.
    assert timm_encoder("dla34").channels == [64, 128, 256, 512]
    model = build_model("timm:resnet18", 3, out_indices=[1, 2], width=8).eval()
    assert len(model.decoder.lateral) == 2
    with torch.no_grad():
        assert model(images(33, 50)).shape == (1, 3, 33, 50)


@pytest.mark.parametrize("indices", [[5], [], [2, 1], [1, 1], [-1], "12", 3, [True], [1.0]])
def test_levels_that_are_not_there(indices: object):
    with pytest.raises(
        ModelError, match=r"out_indices is .*; expected rising indices out of 0 \(stride 2\), 1 \(stride 4\)"
    ):
        build_model("timm:resnet18", 3, out_indices=indices)


@pytest.mark.parametrize("width", [7, 1025, 64.0, None])
def test_a_width_out_of_range(width: object):
    with pytest.raises(ModelError, match=r"width is .*; expected 8 … 1024 decoder channels"):
        build_model("timm:resnet18", 3, width=width)


def test_swin_with_its_channels_last_takes_sizes_that_timms_own_refuses():
    model = build_model("timm:swin_tiny_patch4_window7_224", 3, width=8).eval()
    with torch.no_grad():
        assert model(images(33, 70)).shape == (1, 3, 33, 70)
