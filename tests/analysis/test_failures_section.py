"""Confusions, worst images, panels, and the section as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from painted_runs import PaintedSplit, class_table, painted_subject, picture_of, rendered, through_json

from dropclass_deploy.analysis.failures import ErrorsByPlace, FailureOptions, failures_section
from dropclass_deploy.analysis.failures.confusions import confusion_content
from dropclass_deploy.analysis.failures.drawing import MAX_BYTES
from dropclass_deploy.analysis.failures.panels import choose_images, differing_regions
from dropclass_deploy.analysis.failures.worst import worst_places
from dropclass_deploy.analysis.subject import sweep
from dropclass_deploy.core.metrics import confusion_matrix
from dropclass_deploy.core.sliding_window import Window

IGNORE = 255


def section_of(truths, predictions, classes, options=None, **preprocess):
    split = PaintedSplit(truths, predictions, classes)
    names = ("ce", "dropclass", "other")[: len(predictions)]
    subjects = [painted_subject(name, channel, classes, **preprocess) for channel, name in enumerate(names)]
    places = [ErrorsByPlace(len(classes), IGNORE) for _ in subjects]
    indices = range(len(split))
    confusions = [sweep(subject, split, indices, [place]) for subject, place in zip(subjects, places, strict=True)]
    section = failures_section(subjects, split, indices, confusions, places, options)
    page = rendered("failures", section, classes, names)
    return section, through_json(section.content), page


def one_class_confusions(*ious_and_pixels):
    """(N, 2, 2): images of 10,000 pixels in which class 1 has so many pixels, and misses all but a share of them."""
    made = []
    for share, pixels in ious_and_pixels:
        hits = round(share * pixels)
        made.append([[10_000 - pixels, 0], [pixels - hits, hits]])
    return np.array(made)


def test_confusions_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [255, 0, 0, 0]])
    mask = np.array([[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    content = through_json(confusion_content(confusion_matrix(truth, mask, 3), class_table(3, [2])))
    assert content["matrix"] == [[10, 1, 0], [3, 1, 0], [0, 0, 0]]
    assert content["normalised"] == [[10 / 11, 1 / 11, 0], [0.75, 0.25, 0], [None, None, None]]
    assert (content["pixels"], content["errors"], content["pixel_accuracy"]) == (15, 4, 11 / 15)
    assert content["pairs"] == [
        {"truth": "class1", "predicted": "class0", "pixels": 3, "share_of_class": 0.75, "share_of_errors": 0.75},
        {"truth": "class0", "predicted": "class1", "pixels": 1, "share_of_class": 1 / 11, "share_of_errors": 0.25},
    ]
    assert content["classes"][1]["taken_for"] == [{"name": "class0", "pixels": 3, "share": 0.75}]
    assert content["classes"][1]["iou"] == 1 / 5
    assert content["classes"][2] == {
        "name": "class2",
        "pixels": 0,
        "iou": None,
        "recall": None,
        "precision": None,
        "taken_for": [],
    }


def test_nothing_wrong_names_no_confusion():
    content = confusion_content(np.diag([5, 6]), class_table(2))
    assert content["pairs"] == []
    assert content["errors"] == 0


def test_differing_regions_by_hand():
    truth = np.zeros((20, 20), dtype=int)
    truth[:, 18:] = IGNORE
    first, second = np.zeros_like(truth), np.zeros_like(truth)
    second[2:6, 2:7] = 1  # 20 pixels
    second[10:14, 3:6] = 1  # 12 pixels
    second[8, :] = 1  # a line
    second[:, 18:] = 1  # ignored
    regions = differing_regions(truth, [first, second], IGNORE, 3)
    assert regions.boxes.tolist() == [[2, 2, 6, 7], [10, 3, 14, 6]]
    assert [int(pixels.sum()) for pixels in regions.pixels] == [20, 12]
    assert len(differing_regions(truth, [first, second], IGNORE, 1).boxes) == 1
    # One run: where it errs.
    assert differing_regions(truth, [second], IGNORE, 3).boxes.tolist() == [[2, 2, 6, 7], [10, 3, 14, 6]]


def test_thin_differences_are_shown_where_there_is_nothing_else():
    truth = np.zeros((9, 9), dtype=int)
    line = truth.copy()
    line[4] = 1
    assert differing_regions(truth, [truth, line], IGNORE, 3).boxes.tolist() == [[4, 0, 5, 9]]
    assert differing_regions(truth, [truth, truth], IGNORE, 3).boxes.shape == (0, 4)


def test_the_worst_image_has_enough_of_the_class():
    confusions = one_class_confusions((0.0, 9), (0.5, 400), (0.2, 100), (0.2, 300), (0.9, 50))
    # The first holds too little; of the two at 0.2 the one with more of the class comes first.
    assert list(worst_places([confusions], 1, 2).items()) == [(3, [0]), (2, [0])]


def test_runs_choose_their_worst_images_in_turn():
    first = one_class_confusions((0.1, 400), (0.5, 400), (0.2, 400))
    second = one_class_confusions((0.9, 400), (0.1, 400), (0.8, 400))
    assert worst_places([first, second], 1, 2) == {0: [0], 1: [1]}
    assert worst_places([first, second], 1, 3) == {0: [0, 1], 1: [1, 0], 2: [0, 1]}
    assert worst_places([first, first], 1, 1) == {0: [0, 1]}
    assert worst_places([first, second], 0, 9).keys() == {0, 1, 2}


def test_one_runs_panels_are_the_lowest_and_the_median():
    confusions = one_class_confusions(*((share, 400) for share in (0.5, 0.1, 0.9, 0.3, 0.7)))
    chosen = choose_images([confusions], ["ce"], 3)
    assert [(choice.place, choice.reason) for choice in chosen] == [
        (1, "lowest mean IoU"),
        (3, "lowest mean IoU"),
        (0, "median mean IoU"),
    ]


def test_two_runs_panels_are_gains_and_losses_alike():
    first = one_class_confusions(*((share, 400) for share in (0.5, 0.5, 0.5, 0.5, 0.5)))
    second = one_class_confusions(*((share, 400) for share in (0.9, 0.1, 0.5, 0.6, 0.4)))
    chosen = choose_images([first, second], ["ce", "dropclass"], 4)
    assert [(choice.place, choice.reason) for choice in chosen] == [
        (0, "largest gain of dropclass on ce"),
        (1, "largest loss of dropclass on ce"),
        (3, "second largest gain of dropclass on ce"),
        (4, "second largest loss of dropclass on ce"),
    ]
    assert choose_images([first, first], ["ce", "dropclass"], 4) == []


def two_squares(shape=(40, 50)):
    truth = np.zeros(shape, dtype=int)
    truth[5:15, 5:15], truth[20:32, 20:40] = 1, 2
    truth[0] = IGNORE
    return truth


def test_the_section_of_two_runs_shows_both_everywhere():
    classes = class_table(3, [1])
    truths = [two_squares(), two_squares((45, 41)), two_squares()]
    first = [np.where(truth == 1, 0, truth) % 255 for truth in truths]
    second = [truth % 255 for truth in truths]
    second[2] = np.zeros_like(truths[2])
    section, content, page = section_of(truths, [first, second], classes)
    assert [run["name"] for run in content["runs"]] == ["ce", "dropclass"]
    assert {panel["key"] for panel in content["panels"]} == {"image0", "image1", "image2"}
    for panel in content["panels"]:
        assert [run["name"] for run in panel["runs"]] == ["ce", "dropclass"]
    gain = next(panel for panel in content["panels"] if panel["key"] == "image0")
    assert gain["boxes"] == [
        {
            "left": 5,
            "top": 5,
            "width": 10,
            "height": 10,
            "pixels": 100,
            "right": [{"name": "ce", "share": 0.0}, {"name": "dropclass", "share": 1.0}],
        }
    ]
    (worst,) = content["worst"]
    assert worst["name"] == "class1"
    assert worst["judged_images"] == 3
    by_key = {image["key"]: image for image in worst["images"]}
    assert "dropclass" in by_key["image2"]["worst_of"]
    image = worst["images"][0]
    baseline = image["runs"][0]
    assert (baseline["name"], baseline["iou"], baseline["missed"]) == ("ce", 0.0, 100)
    assert content["runs"][0]["confusion"]["pairs"][0]["truth"] == "class1"
    assert "largest gain of dropclass on ce" in page
    assert all(len(data) <= MAX_BYTES for data in section.pictures.values())
    for data in section.pictures.values():
        picture_of(data)


def test_the_map_shows_the_class_and_its_counts_are_of_the_whole_image():
    truth = np.zeros((100, 200), dtype=int)
    truth[10:20, 10:30] = 1
    _, content, _ = section_of([truth], [[np.where(truth == 1, 1, 0)]], class_table(2, [1]))
    (image,) = content["worst"][0]["images"]
    top, left, bottom, right = image["window"]
    assert (top, left) == (0, 0)
    assert (bottom, right) == (50, 100)  # half of each side at least
    (run,) = image["runs"]
    assert (run["correct"], run["missed"], run["false"], run["iou"]) == (200, 0, 0, 1.0)


@pytest.mark.parametrize("truth", [np.full((6, 6), IGNORE), np.zeros((6, 6)), np.zeros((1, 1))])
def test_splits_with_nothing_to_fail_on_are_shown_too(truth):
    _, content, page = section_of([truth], [[np.zeros(truth.shape)]], class_table(2, [1]))
    assert content["worst"] == []
    assert content["runs"][0]["confusion"]["pairs"] == []
    assert "No pixel is wrong" in page


def test_a_rare_class_without_a_large_enough_image_is_named_without_pictures():
    truth = np.zeros((30, 30), dtype=int)
    truth[3, 3] = 1
    _, content, page = section_of([truth], [[np.zeros((30, 30))]], class_table(2, [1]))
    assert content["worst"] == [{"name": "class1", "judged_images": 0, "images": []}]
    assert "No image holds enough" in page


def test_the_options_limit_what_is_shown():
    truths = [two_squares()] * 3
    masks = [np.zeros((40, 50))] * 3
    options = FailureOptions(panels=1, boxes=1, worst_images=1, rare_classes=1)
    _, content, _ = section_of(truths, [masks], class_table(3, [1, 2]), options)
    assert len(content["panels"]) == 1
    assert len(content["panels"][0]["boxes"]) == 1
    assert [one["name"] for one in content["worst"]] == ["class1"]  # the rarer of the two
    assert len(content["worst"][0]["images"]) == 1


@pytest.mark.parametrize("preprocess", [{"size": (20, 25)}, {"window": Window(height=16, width=16, overlap=0.5)}])
def test_resized_and_windowed_runs_are_judged_at_the_images_size(preprocess):
    truth = two_squares()
    _, content, _ = section_of([truth], [[truth % 255]], class_table(3, [1]), **preprocess)
    assert content["runs"][0]["confusion"]["pixels"] == int((truth != IGNORE).sum())
    assert content["runs"][0]["confusion"]["pixel_accuracy"] > 0.8
