"""U-Net: the paper's shapes, its options, and a backbone as contracting path."""

import pytest
import torch
from torch import Tensor, nn

from dropclass_deploy.core.errors import ModelError
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.models import build_model, default_preprocess
from dropclass_deploy.training.dropclass import DropClass

BACKBONE = "tf_mobilenetv3_small_minimal_100"


def images(*size: int) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def test_the_papers_channels_and_steps():
    model = build_model("unet", num_classes=3, width=64)
    widths = [level[1][0].out_channels for level in model.encoder.levels]
    assert widths == [64, 128, 256, 512, 1024]  # Figure 1 of the paper
    assert [step.convs[0][0].in_channels for step in model.decoder.steps] == [128, 256, 512, 1024]
    assert [step.convs[1][0].out_channels for step in model.decoder.steps] == [64, 128, 256, 512]
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in model.modules()) == 18


def test_each_level_halves_and_rounds_up():
    encoder = build_model("unet", num_classes=3, width=4, depth=3).encoder.eval()
    with torch.no_grad():
        assert [tuple(one.shape) for one in encoder(images(9, 14))] == [
            (1, 4, 9, 14),
            (1, 8, 5, 7),
            (1, 16, 3, 4),
            (1, 32, 2, 2),
        ]


def test_a_pixel_sees_as_far_as_the_depth_allows():
    torch.manual_seed(0)
    model = build_model("unet", num_classes=2, width=4, depth=1).eval()
    one = images(33, 33).requires_grad_()
    model(one)[0, :, 16, 16].sum().backward()
    touched = one.grad.abs().sum(1)[0].nonzero()
    # 2 + 2 convolutions at stride 1, 2 at stride 2, one pooling and one bilinear resize: at most 4 + 2·2 + 1 + 2 = 11 away.
    assert 5 <= (touched - 16).abs().max() <= 11


@pytest.mark.parametrize("depth", [1, 3, None])
@pytest.mark.parametrize("size", [(64, 96), (35, 21), (1, 1)])
def test_a_backbone_as_the_contracting_path(depth: int | None, size: tuple[int, int]):
    model = build_model("unet", num_classes=3, width=4, encoder=BACKBONE, depth=depth).eval()
    assert len(model.decoder.steps) == (4 if depth is None else depth)
    with torch.no_grad():
        assert model(images(*size)).shape == (1, 3, *size)
    found = DropClass(model).classifier
    assert (found.path, found.channels, found.align_corners, found.non_negative) == ("classifier", 4, False, True)


def test_the_backbones_normalisation_is_known():
    assert default_preprocess("unet") == Preprocess()
    assert default_preprocess("unet", encoder=BACKBONE).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 3}, r"width is 3; expected 4 … 256 channels of the first level"),
        ({"width": "32"}, r"width is '32'; expected 4 … 256"),
        ({"depth": 0}, r"depth is 0; expected 1 … 6 steps"),
        ({"depth": True}, r"depth is True; expected 1 … 6 steps"),
        ({"encoder": 18}, r"encoder is 18; expected the name of a timm backbone"),
        ({"encoder": "resnt18"}, r"timm has no backbone 'resnt18'; expected .* such as resnet18"),
        ({"encoder": BACKBONE, "depth": 6}, r"has no 7 feature maps; expected 5 at most \(strides 2, 4, 8, 16, 32\)"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str):
    with pytest.raises(ModelError, match=message):
        build_model("unet", num_classes=3, **options)
