"""Patches and the section, by hand on small cases."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from attribution_cases import (
    PLAIN,
    Pictures,
    ReadsColours,
    Small,
    confusions_of,
    exhausted,
    random_pictures,
    rendered,
    street,
    subject_of,
)
from PIL import Image
from torch import nn

from dropclass_deploy.analysis.unravel import Options, unravel_section
from dropclass_deploy.analysis.unravel.blanking import (
    class_iou,
    covered,
    fall_of,
    fixated_patches,
    most_patches,
    patch_size,
    random_patches,
)


def test_the_page_says_whom_the_choice_of_objects_flatters() -> None:
    data = street()
    options = Options(min_pixels=4, min_recall=0.7, patch=2, patches=3, draws=2)
    for names in (["ce"], ["ce", "dropclass"]):
        runs = [subject_of(ReadsColours(), data.classes, name) for name in names]
        content = unravel_section(runs, data, [0, 1], confusions_of(runs, data), options)
        assert (content.content["min_recall"], content.content["min_pixels"]) == (0.7, 4)
        page = rendered("unravel", json.loads(json.dumps(content.content)), data, content.pictures, names)
        assert "at least 70.0 % of their pixels" in page
        assert "makes ce look better than it is" in page
        assert ("runs without a say in the choice" in page) == (len(names) > 1)


def test_fixated_patches_are_the_heaviest_and_do_not_overlap() -> None:
    weights = np.zeros((6, 8), dtype=np.int64)
    weights[0, 0], weights[0, 1], weights[2, 2], weights[5, 7] = 3, 3, 7, 1
    corners = fixated_patches(weights, 3, 9)
    # The 3×3 windows with all three of the upper left weigh 13; the corner's weighs 1, and nothing else is left.
    assert corners == [(0, 0), (3, 5)]
    assert covered(corners, 3, 6, 8).sum() == 18
    assert fixated_patches(np.zeros((6, 8), dtype=np.int64), 3, 9) == []


def test_random_patches_always_find_room() -> None:
    for height, width, wanted in ((20, 31, 9), (9, 9, 9), (5, 40, 9), (40, 40, 3)):
        size = patch_size(wanted, height, width)
        count = most_patches(50, size, height, width)
        for seed in range(20):
            corners = random_patches(height, width, size, count, np.random.default_rng(seed))
            assert len(corners) == count
            assert covered(corners, size, height, width).sum() == count * size * size


def test_random_patches_lie_anywhere() -> None:
    generator = np.random.default_rng(0)
    total = sum(covered(random_patches(6, 6, 2, 1, generator), 2, 6, 6).astype(int) for _ in range(2000))
    assert total.min() > 0
    # A corner pixel is in one of 25 places, an inner one in four.
    assert total[0, 0] == pytest.approx(80, abs=40)
    assert total[2, 3] == pytest.approx(320, abs=80)


def test_the_fall_by_hand() -> None:
    data = street()
    subject = subject_of(ReadsColours(), data.classes)
    image, truth = data.image(1), data.mask(1)
    mask = subject.segment(image)
    # Found 16 + 4 of 20 + 4 + 25 pixels.
    assert class_iou(mask, truth, 1, truth != 255) == pytest.approx(20 / 49)
    blank = covered([(1, 1)], 2, 12, 12)
    fall = fall_of(subject, image, truth, 1, mask, blank)
    # Black is not red: four pixels are lost; of those beyond the patch, none.
    assert fall.everywhere == pytest.approx(20 / 49 - 16 / 49)
    assert fall.outside == pytest.approx(0)
    assert image[1, 1, 0] == 255, "the data set's image stays as it is"
    all_of_it = fall_of(subject, image, truth, 1, mask, np.ones((12, 12), dtype=np.bool_))
    assert all_of_it.outside is None


def test_blanking_paints_the_mean_of_the_preprocessing() -> None:
    seen = []

    class Keeps(ReadsColours):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    data = street()
    subject = subject_of(Keeps(), data.classes, preprocess=PLAIN.model_copy(update={"mean": (0.2, 0.4, 0.6)}))
    image, truth = data.image(1), data.mask(1)
    fall_of(subject, image, truth, 1, truth, np.ones((12, 12), dtype=np.bool_))
    assert seen[-1].abs().max() < 1e-6


def test_the_section_by_hand() -> None:
    data = street()
    subject = subject_of(ReadsColours(), data.classes)
    options = Options(min_pixels=4, patch=2, patches=3, draws=4)
    section = unravel_section([subject], data, [0, 1], confusions_of([subject], data), options)
    content = json.loads(json.dumps(section.content))
    (one,) = content["objects"]
    assert (one["class"], one["image"], one["pixels"], one["patches"]) == (1, "image 1", 20, 3)
    run = one["runs"][0]
    # The network sees single pixels: the points are the 16 red pixels that the object has, each its own.
    assert (run["pixels"], run["followed"], run["arrived"]) == (16, 16, 16)
    assert (run["in_object"], run["in_class"], run["recall"]) == (1, 1, 16 / 20)
    assert run["fall"] == pytest.approx(12 / 49), "three patches of four pixels"
    assert run["fall_outside"] == pytest.approx(20 / 49 - 20 / 49, abs=0.3)
    assert len(run["random_falls"]) == 4
    summary = content["runs"][0]
    assert content["compared"] == 1
    assert summary["fall"] == run["fall"]
    assert summary["random_fall"] == pytest.approx(np.mean(run["random_falls"]))
    assert summary["random_spread"] == pytest.approx(np.std(run["random_falls"], ddof=1))
    again = unravel_section([subject], data, [0, 1], confusions_of([subject], data), options)
    assert again.content == section.content, "seeded"


class Transformer(Small):
    """Something that cannot be followed stands before the classifier."""

    def forward(self, images):
        maps = self.body(images)
        tokens = maps.flatten(2)
        # Attention between channels that leaves the maps as they are: what it predicts is what Small does.
        shares = torch.eye(6) + 0 * torch.bmm(tokens, tokens.transpose(1, 2))
        logits = self.head(torch.bmm(shares, tokens).reshape(maps.shape))
        return nn.functional.interpolate(logits, images.shape[-2:], mode="bilinear")


def test_two_runs_and_one_that_cannot_be_followed() -> None:
    data = random_pictures([(20, 30), (33, 18)], rare=(0, 1, 2))
    runs = [
        subject_of(Small(3, seed=1), data.classes, "ce"),
        subject_of(Small(3, seed=2), data.classes, "dropclass"),
        subject_of(Transformer(3, seed=1), data.classes, "attention"),
    ]
    options = Options(objects=3, per_class=1, min_pixels=5, min_recall=0.1, patch=5, patches=2, draws=2)
    seen: list[tuple[int, int]] = []
    section = unravel_section(
        runs, data, [0, 1], confusions_of(runs, data), options, advance=lambda done, total: seen.append((done, total))
    )
    content = json.loads(json.dumps(section.content))
    assert content["objects"]
    assert seen[-1][0] == seen[-1][1] == 3 * len(content["objects"])
    assert [run["problem"] is None for run in content["runs"]] == [True, True, False]
    assert "'bmm'" in content["runs"][2]["problem"]
    assert content["runs"][2]["fall"] is None
    for data_of in section.pictures.values():
        with Image.open(io.BytesIO(data_of)) as picture:
            assert picture.width <= 640
    page = rendered("unravel", content, data, section.pictures, [run.name for run in runs])
    assert "attention: not unravelled" in page


# The sweep takes two passes; then each object takes five: prediction, way back, blanking, and two at random.
@pytest.mark.parametrize("passes", [2, 3, 4, 5, 7, 8])
def test_a_network_that_breaks_down_costs_its_own_figures_only(passes: int) -> None:
    data = random_pictures([(20, 30), (33, 18)], rare=(0, 1, 2))
    runs = [
        subject_of(Small(3, seed=1), data.classes, "ce"),
        exhausted(data.classes, passes, "large"),
    ]
    options = Options(objects=3, per_class=1, min_pixels=5, min_recall=0.1, patch=5, patches=2, draws=2)
    section = unravel_section(runs, data, [0, 1], confusions_of(runs, data), options)
    known, broken = section.content["runs"]
    assert known["problem"] is None
    assert known["fall"] is not None
    assert broken["problem"] == "CUDA out of memory."
    for one in section.content["objects"]:
        assert one["runs"][0]["picture"] is not None
        own = one["runs"][1]
        assert (own["picture"], own["in_object"], own["followed"], own["random_falls"]) == (None, None, 0, [])
    page = rendered("unravel", json.loads(json.dumps(section.content)), data, section.pictures, ["ce", "large"])
    assert "large: not unravelled. CUDA out of memory.<" in page


def test_a_fault_of_the_code_is_not_taken_for_the_networks(monkeypatch) -> None:
    def broken(*_, **__):
        raise KeyError("kernel_size")

    monkeypatch.setattr("dropclass_deploy.analysis.unravel.section.fixations_on_image", broken)
    data = street()
    subject = subject_of(ReadsColours(), data.classes)
    with pytest.raises(KeyError):
        unravel_section([subject], data, [0, 1], confusions_of([subject], data), Options(min_pixels=4))


def test_a_baseline_that_breaks_down_leaves_no_objects_and_says_why() -> None:
    data = random_pictures([(20, 30)], rare=(0, 1, 2))
    subject = exhausted(data.classes, 1)
    section = unravel_section([subject], data, [0], confusions_of([subject], data))
    assert section.content["objects"] == []
    assert section.content["runs"][0]["problem"] == "CUDA out of memory."
    page = rendered("unravel", section.content, data, section.pictures, ["ce"])
    assert "finds no object" not in page
    assert "ce: not unravelled. CUDA out of memory.<" in page


@pytest.mark.parametrize("value", [0, 255])
def test_no_object_leaves_an_honest_page(value: int) -> None:
    data = Pictures([np.zeros((6, 6, 3), np.uint8)], [np.full((6, 6), value, np.uint8)], ["other", "red"], (1,))
    subject = subject_of(ReadsColours(), data.classes)
    section = unravel_section([subject], data, [0], confusions_of([subject], data))
    assert section.content["objects"] == []
    assert section.content["compared"] == 0
    assert section.content["runs"][0]["fall"] is None
    assert "nothing to unravel" in rendered("unravel", section.content, data, section.pictures, ["ce"])
