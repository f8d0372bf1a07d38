"""Grad-CAM's section: pairs, images, shares by hand, pictures, the partial of the page."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
from attribution_cases import (
    Pictures,
    ReadsColours,
    Small,
    TwoHeads,
    confusions_of,
    exhausted,
    random_pictures,
    rendered,
    subject_of,
)
from PIL import Image

from dropclass_deploy.analysis.grad_cam import Pair, confused_pairs, grad_cam_section
from dropclass_deploy.analysis.grad_cam.pairs import images_of
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError


def test_pairs_by_hand_rare_first() -> None:
    classes = ClassTable(names=("a", "b", "c", "d"), rare=(2,))
    counts = np.array(
        [
            [[50, 30, 20, 0], [1, 99, 0, 0], [0, 1, 8, 1], [0, 0, 0, 0]],
            [[90, 10, 0, 0], [0, 50, 50, 0], [0, 2, 8, 0], [0, 0, 0, 0]],
        ]
    )
    # a: 40 of 200 to b; b: 50 of 200 to c; c (rare): 3 of 20 to b; d: absent.
    assert confused_pairs(counts, classes, 9) == (Pair(2, 1), Pair(1, 2), Pair(0, 1))
    assert confused_pairs(counts, classes, 1) == (Pair(2, 1),)
    assert images_of(Pair(2, 1), counts, 5) == [1, 0]
    assert images_of(Pair(1, 2), counts, 5) == [1]
    assert images_of(Pair(2, 0), counts, 5) == [0, 1], "never confused: by size of the true class"
    assert images_of(Pair(3, 0), counts, 5) == []


def colours() -> Pictures:
    """4×4; class 1 is the left half but looks so in its upper two rows and in one pixel on the right only."""
    red = np.zeros((4, 4), dtype=np.uint8)
    red[:2, :2] = 255
    red[3, 3] = 153  # 0.6
    truth = np.zeros((4, 4), dtype=np.uint8)
    truth[:, :2] = 1
    truth[0, 3] = 255
    image = np.stack([red, np.zeros_like(red), np.zeros_like(red)], axis=-1)
    return Pictures([image], [truth], ["other", "red"], rare=(1,))


def test_shares_by_hand() -> None:
    data = colours()
    subject = subject_of(ReadsColours(), data.classes)
    section = grad_cam_section([subject], data, [0], confusions_of([subject], data))
    # Class 1's map is red: 4 on the four upper left pixels, 0.6 on one pixel of class 0.
    first = section.content["pairs"][0]
    assert (first["truth"], first["confused"], first["images"]) == (1, 0, 1)
    run = first["runs"][0]
    assert run["rate"] == pytest.approx(4 / 8)
    assert run["truth_map"]["on_truth"] == pytest.approx(4 / 4.6, abs=1e-6)
    assert run["truth_map"]["on_confused"] == pytest.approx(0.6 / 4.6, abs=1e-6)
    # Class 0's map is 1 − red on 15 labelled pixels: four of the left half, six of seven whole ones on the right, and 0.4.
    assert run["confused_map"]["on_truth"] == pytest.approx(4 / 10.4, abs=1e-6)
    assert run["confused_map"]["on_confused"] == pytest.approx(6.4 / 10.4, abs=1e-6)
    assert first["even"]["truth_map"] == pytest.approx({"on_truth": 8 / 15, "on_confused": 7 / 15})
    assert first["even"]["confused_map"] == first["even"]["truth_map"]
    assert first["used"] == {name: {"on_truth": 1, "on_confused": 1} for name in ("truth_map", "confused_map")}
    assert first["mistaken"] is True
    assert section.content["maps"][0]["confused_pixels"] == 4


def test_two_runs_are_explained_on_the_baselines_images() -> None:
    data = random_pictures([(20, 30), (33, 18), (16, 16)])
    runs = [subject_of(Small(3, seed=seed), data.classes, name) for seed, name in ((0, "ce"), (1, "dropclass"))]
    section = grad_cam_section(runs, data, [0, 1, 2], confusions_of(runs, data), measured=2)
    content = json.loads(json.dumps(section.content))
    assert content["pairs"][0]["truth"] == 2, "the rare class first"
    assert all([run["name"] for run in pair["runs"]] == ["ce", "dropclass"] for pair in content["pairs"])
    assert all(pair["images"] <= 2 for pair in content["pairs"])
    assert len(content["maps"]) == len(content["pairs"])
    assert len(section.pictures) == 5 * len(content["maps"])
    for data_of in section.pictures.values():
        with Image.open(io.BytesIO(data_of)) as picture:
            assert picture.width <= 640
    page = rendered("grad_cam", content, data, section.pictures, ["ce", "dropclass"])
    assert "class 2 <em>(rare)</em>" in page


def test_named_pairs_and_one_that_is_no_class() -> None:
    data = random_pictures([(8, 8)])
    runs = [subject_of(Small(3), data.classes)]
    counts = confusions_of(runs, data)
    section = grad_cam_section(runs, data, [0], counts, [("class 1", "class 0")])
    assert [(pair["truth"], pair["confused"]) for pair in section.content["pairs"]] == [(1, 0)]
    with pytest.raises(DataError, match="no class 'cat'"):
        grad_cam_section(runs, data, [0], counts, [("cat", "class 0")])
    with pytest.raises(DataError, match="twice"):
        grad_cam_section(runs, data, [0], counts, [("class 0", "class 0")])


def test_a_run_without_a_classifier_says_so_and_the_other_has_its_maps() -> None:
    data = random_pictures([(12, 12)])
    runs = [subject_of(Small(3), data.classes, "ce"), subject_of(TwoHeads(3), data.classes, "odd")]
    section = grad_cam_section(runs, data, [0], confusions_of(runs, data))
    known, odd = section.content["runs"]
    assert known["problem"] is None
    assert "cannot be found" in odd["problem"]
    first = section.content["pairs"][0]["runs"]
    assert first[0]["truth_map"]["on_truth"] is not None
    assert first[1]["truth_map"] == {"on_truth": None, "on_confused": None}
    assert "no maps" in rendered("grad_cam", section.content, data, section.pictures, ["ce", "odd"])
    named = grad_cam_section(runs, data, [0], confusions_of(runs, data), layer="body")
    assert [run["problem"] for run in named.content["runs"]] == [None, None]


class Dull(ReadsColours):
    """As ``ReadsColours``, but red speaks for class 1 above 0.7 only: in a paler image its map is 0 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.body[0].bias.copy_(torch.tensor([1.0, -0.7]))


def red_squares(*reds: float) -> Pictures:
    """4×4, the left half class 1; of that, the upper left pixel is so red, and of the right half the lower right one.

    In the second image all pixels but those of the upper row are labelled; the third has no class 0.
    """
    images, truths = [], []
    for number, red in enumerate(reds):
        image = np.zeros((4, 4, 3), dtype=np.uint8)
        image[1, 0, 0] = image[3, 3, 0] = round(255 * red)
        truth = np.repeat(np.array([[1, 1, 0, 0]], dtype=np.uint8), 4, axis=0)
        if number == 1:
            truth[0] = 255
        if number == 2:
            truth[truth == 0] = 255
        images.append(image)
        truths.append(truth)
    return Pictures(images, truths, ["other", "red"], rare=(1,))


def test_means_are_over_the_same_images_for_every_run() -> None:
    data = red_squares(1.0, 0.6, 1.0)
    runs = [
        subject_of(ReadsColours(), data.classes, "ce"),
        subject_of(Dull(), data.classes, "dull"),
        subject_of(TwoHeads(2), data.classes, "odd"),
    ]
    section = grad_cam_section(runs, data, [0, 1, 2], confusions_of(runs, data))
    pair = section.content["pairs"][0]
    assert (pair["truth"], pair["confused"], pair["images"]) == (1, 0, 3)
    # "dull" has no map of class 1 in the second image; the third has no place of class 0; "odd" has no maps at all.
    assert pair["used"]["truth_map"] == {"on_truth": 2, "on_confused": 1}
    assert pair["used"]["confused_map"] == {"on_truth": 3, "on_confused": 2}
    ce, dull, odd = pair["runs"]
    # Class 1's map: half of it on either square in the first image, all of what is labelled in the third.
    for run in (ce, dull):
        assert run["truth_map"] == pytest.approx({"on_truth": (0.5 + 1) / 2, "on_confused": 0.5})
    assert odd["truth_map"] == {"on_truth": None, "on_confused": None}
    # Even maps over those same images: halves; in the third image, all of what is labelled is class 1.
    assert pair["even"]["truth_map"] == pytest.approx({"on_truth": 0.75, "on_confused": 0.5})
    assert pair["even"]["confused_map"] == pytest.approx({"on_truth": 2 / 3, "on_confused": 0.5})
    page = rendered("grad_cam", json.loads(json.dumps(section.content)), data, section.pictures, ["ce", "dull", "odd"])
    row = page[page.index("<em>images with a figure</em>") :]
    assert re.findall(r"<td>(.*?)</td>", row)[:5] == ["–", "2", "1", "3", "2"]


def test_a_map_that_one_run_never_has_gives_no_means() -> None:
    data = red_squares(0.6)
    runs = [subject_of(ReadsColours(), data.classes, "ce"), subject_of(Dull(), data.classes, "dull")]
    pair = grad_cam_section(runs, data, [0], confusions_of(runs, data), [("red", "other")]).content["pairs"][0]
    assert pair["used"]["truth_map"] == {"on_truth": 0, "on_confused": 0}
    assert [run["truth_map"]["on_truth"] for run in pair["runs"]] == [None, None]
    assert pair["even"]["truth_map"] == {"on_truth": None, "on_confused": None}
    assert pair["used"]["confused_map"] == {"on_truth": 1, "on_confused": 1}


def test_a_pair_that_is_never_confused_says_how_its_images_were_chosen() -> None:
    data = red_squares(1.0, 1.0)
    runs = [subject_of(ReadsColours(), data.classes)]
    counts = confusions_of(runs, data)
    # All of class 0 was found, so that it was never taken for class 1.
    counts[0][:, 0] = [[8, 0], [6, 0]]
    section = grad_cam_section(runs, data, [0, 1], counts, [("red", "other"), ("other", "red")])
    made, never = section.content["pairs"]
    assert (made["mistaken"], never["mistaken"]) == (True, False)
    assert (never["images"], never["runs"][0]["rate"]) == (2, 0)
    page = rendered("grad_cam", json.loads(json.dumps(section.content)), data, section.pictures, ["ce"])
    assert page.count("ce never takes other for red in these images") == 1
    assert "ce never takes red" not in page
    nowhere = Pictures([data.image(0)] * 2, [0 * data.mask(0)] * 2, ["other", "red"])
    counts = confusions_of(runs, nowhere)
    section = grad_cam_section(runs, nowhere, [0, 1], counts, [("red", "other")])
    assert section.content["pairs"][0]["images"] == 0
    page = rendered("grad_cam", section.content, nowhere, section.pictures, ["ce"])
    assert "and none of them has red" in page


def test_pairs_that_the_baseline_confuses_need_no_such_word() -> None:
    data = red_squares(1.0, 1.0)
    runs = [subject_of(ReadsColours(), data.classes)]
    only_made = grad_cam_section(runs, data, [0, 1], confusions_of(runs, data))
    assert "never takes" not in rendered("grad_cam", only_made.content, data, only_made.pictures, ["ce"])


@pytest.mark.parametrize("passes", [3, 5])
def test_a_network_that_breaks_down_costs_its_own_figures_only(passes: int) -> None:
    data = random_pictures([(20, 30), (33, 18), (16, 16)])
    runs = [
        subject_of(Small(3), data.classes, "ce"),
        exhausted(data.classes, passes, "large"),  # three of them for the confusions
    ]
    section = grad_cam_section(runs, data, [0, 1, 2], confusions_of(runs, data), shown=3)
    known, broken = section.content["runs"]
    assert known["problem"] is None
    assert broken["problem"] == "CUDA out of memory."
    for pair in section.content["pairs"]:
        assert pair["runs"][0]["truth_map"]["on_truth"] is not None
        assert pair["runs"][1]["truth_map"] == {"on_truth": None, "on_confused": None}
    for one in section.content["maps"]:
        assert one["runs"][0]["truth_map"]["picture"] is not None
        assert one["runs"][1]["truth_map"] == {"on_truth": None, "on_confused": None, "picture": None}
    page = rendered("grad_cam", json.loads(json.dumps(section.content)), data, section.pictures, ["ce", "large"])
    assert "large: no maps. CUDA out of memory.<" in page


@pytest.mark.parametrize("value", [255, 0])
def test_nothing_labelled_or_nothing_confused_leaves_an_honest_page(value: int) -> None:
    data = Pictures([np.zeros((6, 6, 3), np.uint8)], [np.full((6, 6), value, np.uint8)], ["other", "red"], (1,))
    runs = [subject_of(ReadsColours(), data.classes)]
    section = grad_cam_section(runs, data, [0], confusions_of(runs, data))
    assert section.content["pairs"] == []
    assert "nothing to explain" in rendered("grad_cam", section.content, data, section.pictures, ["ce"])
