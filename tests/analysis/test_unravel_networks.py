"""Unravelling whole networks: the package's own, at odd sizes, and what an image of any kind makes of the points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attribution_cases import PLAIN, ReadsColours, Small, random_pictures, subject_of
from torch import nn

from dropclass_deploy.analysis.unravel import fixations, fixations_on_image
from dropclass_deploy.core.sliding_window import Window
from dropclass_deploy.models import build_model, model_names
from dropclass_deploy.training.dropclass.fold import FoldedHead


def middle(height: int, width: int) -> np.ndarray:
    region = np.zeros((height, width), dtype=np.bool_)
    region[height // 3 : height // 2, width // 3 : width // 2] = True
    return region


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in model_names()],
        ("unet", {"encoder": "resnet18", "width": 8}),
        ("hourglass", {"activation": "gelu", "norm": "none", "inter_skips": False}),
        ("vgg_resnet", {"down": "stride", "decoder": "unet", "activation": "none"}),
        ("timm:convnext_atto", {"width": 16}),
        ("timm:seresnet18", {"width": 16}),
    ],
)
def test_every_network_leads_back_into_the_image(name: str, options: dict) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, **options).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(1, 3, 37, 51, generator=torch.Generator().manual_seed(1))
    region = middle(37, 51)
    with torch.inference_mode():
        found = fixations(model, image, region, 2)
    assert found.pixels == found.followed == region.sum()
    assert found.arrived + sum(found.ended.values()) == found.followed
    assert found.arrived > 0
    assert (found.places >= 0).all()
    assert (found.places < [37, 51]).all()
    assert len(np.unique(found.places, axis=0)) == len(found.places)
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_model_names_are_tried_by_the_case_above() -> None:
    assert set(model_names()) >= {"lite0", "deeplabv3_mobilenet_v3_large", "unet", "hourglass"}


@pytest.mark.parametrize("signed", [False, True])
def test_a_folded_head_is_followed(signed: bool) -> None:
    torch.manual_seed(4)
    model = Small(3)
    conv = nn.Conv2d(12 if signed else 6, 6, 1)
    model.head = FoldedHead(conv, model.head, signed=signed)
    found = fixations(model, torch.randn(1, 3, 20, 20), middle(20, 20), 1)
    assert found.arrived > 0


def test_a_region_too_large_is_thinned_evenly() -> None:
    region = np.ones((12, 10), dtype=np.bool_)
    image = torch.rand(1, 3, 12, 10)
    found = fixations(ReadsColours(), image, region, 1, max_points=30)
    assert (found.pixels, found.followed, found.arrived) == (120, 30, 30)
    # This network sees a pixel at a time: the points are the pixels that were taken, every fourth.
    assert (found.places[:, 0] * 10 + found.places[:, 1]).tolist() == list(range(0, 120, 4))
    assert (found.weights == 1).all()


def test_an_empty_region_has_no_points() -> None:
    found = fixations(ReadsColours(), torch.rand(1, 3, 4, 4), np.zeros((4, 4), dtype=np.bool_), 0)
    assert (found.pixels, found.followed, found.arrived, found.ended) == (0, 0, 0, {})
    assert found.map(4, 4).sum() == 0


def test_pixels_whose_logit_is_a_bias_end() -> None:
    found = fixations(ReadsColours(), torch.ones(1, 3, 4, 4), middle(4, 4) | True, 0)
    assert found.arrived == 0
    assert found.ended == {"convolution": 16}


def test_points_of_a_resized_image_are_its_own_pixels() -> None:
    data = random_pictures([(20, 30)])
    model = Small(3)
    model.head.weight.data.abs_()  # so that some feature speaks for the class
    subject = subject_of(model, data.classes, preprocess=PLAIN.model_copy(update={"size": (40, 45)}))
    found = fixations_on_image(subject, data.image(0), middle(20, 30), 1)
    assert found.arrived > 0
    assert (found.places < [20, 30]).all()
    near = np.abs(found.places - [8, 12]).max(axis=1)
    # The network reaches two of its own pixels beyond its region; the image's are twice as high, half as wide again.
    assert near.max() <= 6


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 40), (64, 64)])
def test_a_window_lies_around_the_region(height: int, width: int) -> None:
    data = random_pictures([(30, 33)])
    plain = subject_of(ReadsColours(), data.classes)
    window = PLAIN.model_copy(update={"window": Window(height=height, width=width)})
    region = np.zeros((30, 33), dtype=np.bool_)
    region[25:29, 1:4] = True
    expected = fixations_on_image(plain, data.image(0), region, 1)
    found = fixations_on_image(subject_of(plain.model, data.classes, preprocess=window), data.image(0), region, 1)
    assert expected.arrived > 0
    assert np.array_equal(found.places, expected.places)
    assert np.array_equal(found.weights, expected.weights)


class Tabled(ReadsColours):
    """Takes one size only: a table of positions, all 0, is added to the image."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 3, height, width))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images + self.table)


@pytest.mark.parametrize("size", [(24, 60), (24, 41), (50, 37), (32, 48), (31, 47)])
def test_a_window_larger_than_the_image_is_padded_as_it_slides(size: tuple[int, int]) -> None:
    data = random_pictures([size])
    window = PLAIN.model_copy(update={"window": Window(height=32, width=48)})
    subject = subject_of(Tabled(32, 48), data.classes, preprocess=window)
    assert subject.segment(data.image(0)).shape == size
    region = np.zeros(size, dtype=np.bool_)
    region[20:23, 30:36] = True
    found = fixations_on_image(subject, data.image(0), region, 1)
    # The network sees a pixel at a time, and no pixel of noise is 0.
    assert found.places.tolist() == np.argwhere(region & (data.image(0)[..., 0] > 0)).tolist()
    assert (found.pixels, found.followed) == (18, 18)


class LooksUp(ReadsColours):
    """The colour of a pixel is that of the one three rows above it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(images, (0, 0, 3, 0))[:, :, :-3])


@pytest.mark.parametrize("padding", ["replicate", "reflect"])
def test_a_way_into_the_padding_has_ended_there(padding: str) -> None:
    data = random_pictures([(10, 16)])
    image = np.full((10, 16, 3), 200, dtype=np.uint8)
    # Six rows are missing: three before, three after.
    window = PLAIN.model_copy(update={"window": Window(height=16, width=16, padding=padding)})
    region = np.zeros((10, 16), dtype=np.bool_)
    region[0:5, 2:4] = True
    found = fixations_on_image(subject_of(LooksUp(), data.classes, preprocess=window), image, region, 1)
    # Rows 0 to 2 look at the padding, rows 3 and 4 at rows 0 and 1.
    assert found.places.tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert found.ended == {"padding": 6}
    assert found.arrived + 6 == found.followed == found.pixels == 10
