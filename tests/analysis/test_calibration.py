"""Calibration by hand, against torchmetrics, and against literal loops in float64."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from painted_runs import class_table, painted_subject, rendered, seen_of, through_json
from torchmetrics.functional.classification import multiclass_calibration_error

from dropclass_deploy.analysis.calibration import Calibration, calibration_section
from dropclass_deploy.analysis.calibration import section as section_module

IGNORE = 255


def logits_of(probabilities):
    """(2, H, W) logits whose softmax gives class 1 these probabilities."""
    second = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([torch.zeros_like(second), torch.log(second / (1 - second))]).float()


def random_images(seed, count=3, classes=4, shape=(13, 17), spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = spread * torch.randn((classes, *shape), generator=generator)
        truth = torch.randint(0, classes, shape, generator=generator)
        truth[torch.rand(shape, generator=generator) < 0.1] = IGNORE
        yield truth.numpy(), logits


def observed(images, classes, **options):
    calibration = Calibration(classes, IGNORE, **options)
    for truth, logits in images:
        calibration.observe(seen_of(truth, logits))
    return calibration


def test_by_hand():
    # Confidences .9 .9 | .6 | .8, predicted 1 1 | 1 | 0; the last row is ignored.
    probabilities = [[0.9, 0.9], [0.6, 0.2], [0.7, 0.7]]
    truth = [[1, 0], [1, 0], [IGNORE, IGNORE]]
    calibration = observed([(np.array(truth), logits_of(probabilities))], 2, bins=2)
    assert calibration.top.pixels.tolist() == [[0, 1], [0, 3]]
    # All four lie in (½, 1]: mean confidence .8, three are right.
    assert calibration.top.pooled().ece()[0] == pytest.approx(0.8 - 0.75, abs=1e-6)
    # Class 0: confidence .8 and right; class 1: confidence .8 and two of three right.
    np.testing.assert_allclose(calibration.top.ece(), [0.2, 0.8 - 2 / 3], atol=1e-6)
    # Classwise: class 1 gets .2 where it is not, and .6 .9 .9 where it is in two of three.
    np.testing.assert_allclose(calibration.classwise.ece()[1], (1 * 0.2 + 3 * (0.8 - 2 / 3)) / 4, atol=1e-6)
    assert calibration.classwise.confidence[1].sum() == pytest.approx(2.6, abs=1e-6)
    assert calibration.classwise.right[1].sum() == 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bins", [10, 15])
def test_ece_of_all_pixels_is_torchmetrics(seed, bins):
    images = list(random_images(seed))
    ours = observed(images, 4, bins=bins).top.pooled().ece()[0]
    rows = torch.cat([logits.flatten(1).T for _, logits in images])
    target = torch.cat([torch.from_numpy(truth).flatten() for truth, _ in images])
    theirs = multiclass_calibration_error(rows.softmax(1), target, 4, n_bins=bins, norm="l1", ignore_index=IGNORE)
    # torchmetrics sums in float32.
    assert ours == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_bins_of_a_class_are_those_of_a_literal_loop(seed):
    images, bins = list(random_images(seed)), 15
    calibration = observed(images, 4, bins=bins)
    top = {(c, m): [] for c in range(4) for m in range(bins)}
    wise = {(c, m): [] for c in range(4) for m in range(bins)}
    for truth, logits in images:
        for row, column in np.ndindex(*truth.shape):
            label = int(truth[row, column])
            if label == IGNORE:
                continue
            values = [float(value) for value in logits[:, row, column]]
            weights = [math.exp(value - max(values)) for value in values]
            shares = [weight / sum(weights) for weight in weights]
            winner = shares.index(max(shares))
            top[winner, math.ceil(bins * shares[winner]) - 1].append((shares[winner], label == winner))
            for index, share in enumerate(shares):
                wise[index, math.ceil(bins * share) - 1].append((share, label == index))
    for counted, expected in ((calibration.top, top), (calibration.classwise, wise)):
        for (index, place), pixels in expected.items():
            assert counted.pixels[index, place] == len(pixels)
            assert counted.right[index, place] == sum(right for _, right in pixels)
            assert counted.confidence[index, place] == pytest.approx(sum(share for share, _ in pixels), abs=1e-4)
        for index in range(4):
            total = sum(len(expected[index, place]) for place in range(bins))
            gaps = (abs(sum(right - share for share, right in expected[index, place])) for place in range(bins))
            assert counted.ece()[index] == pytest.approx(sum(gaps) / total, abs=1e-5)


def test_edges_belong_to_the_bin_below():
    calibration = observed([(np.array([[0]]), torch.zeros(2, 1, 1))], 2, bins=2)
    assert calibration.top.pixels.tolist() == [[1, 0], [0, 0]]  # exactly one half


def test_full_certainty_lies_in_the_last_bin():
    logits = torch.tensor([[[200.0]], [[-200.0]]])
    calibration = observed([(np.array([[0]]), logits)], 2)
    assert calibration.top.pixels[0, -1] == 1
    assert calibration.classwise.pixels[1, 0] == 1  # a probability of exactly 0
    assert calibration.top.pooled().ece()[0] == 0


def test_a_class_that_is_never_predicted_has_classwise_figures_only():
    calibration = observed([(np.array([[0, 1]]), logits_of([[0.1, 0.3]]))], 2)
    assert np.isnan(calibration.top.ece()[1])
    assert calibration.classwise.ece()[1] == pytest.approx((0.1 + 0.7) / 2, abs=1e-6)


def test_pixels_without_finite_logits_are_counted_apart():
    logits = logits_of([[0.9, 0.9, 0.9]])
    logits[0, 0, 0] = float("nan")
    logits[1, 0, 1] = float("inf")
    calibration = observed([(np.array([[1, 1, 1]]), logits)], 2)
    assert calibration.unusable == 2
    assert calibration.top.pixels.sum() == 1


def test_all_ignored_has_no_figure():
    classes = class_table(2, [1])
    calibration = observed([(np.full((2, 2), IGNORE), logits_of([[0.9, 0.9]] * 2))], 2)
    section = calibration_section([painted_subject("ce", 0, classes)], [calibration])
    run = through_json(section.content)["runs"][0]
    assert (run["ece"], run["pixels"], run["confidence"], run["accuracy"]) == (None, 0, None, None)
    assert section.content["chart"] is None
    assert not section.pictures
    assert "–" in rendered("calibration", section, classes, ["ce"])


def test_without_classwise_the_figures_are_left_out():
    classes = class_table(2)
    calibration = observed([(np.array([[0, 1]]), logits_of([[0.1, 0.3]]))], 2, classwise=False)
    section = calibration_section([painted_subject("ce", 0, classes)], [calibration])
    assert section.content["runs"][0]["classes"][0]["classwise_ece"] is None
    assert section.content["runs"][0]["rare"]["ece"] is None  # no class is rare
    rendered("calibration", section, classes, ["ce"])


def test_the_section_shows_every_run_and_the_rare_classes_together():
    classes = class_table(4, [2, 3])
    subjects = [painted_subject("ce", 0, classes), painted_subject("dropclass", 1, classes)]
    images = list(random_images(0, count=8))
    calibrations = [observed(images, 4), observed([(truth, logits / 5) for truth, logits in images], 4)]
    section = calibration_section(subjects, calibrations)
    content = through_json(section.content)
    assert [run["name"] for run in content["runs"]] == ["ce", "dropclass"]
    first = content["runs"][0]
    for name, one in (("all", first), ("rare", first["rare"]), *((one["name"], one) for one in first["classes"])):
        gaps = [abs(b["accuracy"] - b["confidence"]) * b["pixels"] for b in one["bins"] if b["pixels"]]
        assert one["ece"] == pytest.approx(sum(gaps) / one["pixels"]), name
        assert sum(b["pixels"] for b in one["bins"]) == one["pixels"]
    assert first["rare"]["pixels"] == sum(one["pixels"] for one in first["classes"][2:])
    page = rendered("calibration", section, classes, ["ce", "dropclass"])
    assert "dropclass" in page
    drawing = section.pictures[content["chart"]].decode()
    root = ElementTree.fromstring(drawing)  # a file of its own
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    strokes = set(re.findall(r"stroke: var\((--chart-\d)\)", drawing))
    assert strokes == {"--chart-0", "--chart-1", "--chart-2"}  # the diagonal and two runs
    assert all(f"{name}:" in drawing for name in re.findall(r"var\((--[\w-]+)\)", drawing))
    assert "prefers-color-scheme: dark" in drawing


def test_the_drawings_colours_are_the_pages():
    style = (files("dropclass_deploy.analysis.report") / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = style.split("prefers-color-scheme: dark", 1)
    for page, (lines, muted, grid) in ((light, section_module._LIGHT), (dark, section_module._DARK)):
        named = {"--muted": muted, "--line": grid, **{f"--chart-{at}": colour for at, colour in enumerate(lines)}}
        assert all(f"{name}: {colour};" in page for name, colour in named.items())
