"""Figures of the audit: matrices, Top-3, I* and the vulnerable half, by hand and by a literal loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from audit_cases import GREEN, RED, ListedData, RedNeedsGreen, WideView, random_pairs, subject_of

from dropclass_deploy.analysis.co_location import (
    AuditPlan,
    AuditResult,
    CoLocationAudit,
    Eraser,
    co_location_section,
    plan_audit,
)
from dropclass_deploy.analysis.co_location.influence import (
    influence_of,
    most_vulnerable,
    star_iou,
    top_influences,
)
from dropclass_deploy.analysis.subject import sweep
from dropclass_deploy.core.classes import ClassTable

NAN = float("nan")


def section_of(data, *subjects):
    indices = range(len(data))
    plan = plan_audit(data, indices)
    audits = [CoLocationAudit(subject, plan) for subject in subjects]
    for subject, audit in zip(subjects, audits, strict=True):
        sweep(subject, data, indices, [audit])
    section = co_location_section(plan, [audit.result() for audit in audits], data.classes)
    return json.loads(json.dumps(section.content, allow_nan=False)), section


def two_classes():
    """4×4: green above, red below, two of the green pixels painted red; see the audit's test by hand."""
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    truth = np.repeat(np.array([0, 0, 1, 1], dtype=np.uint8)[:, None], 4, axis=1)
    image[truth == 0], image[truth == 1] = GREEN, RED
    image[0, :2] = RED
    return ListedData([(image, truth)], ("green", "red"))


def test_every_figure_of_two_classes_by_hand() -> None:
    data = two_classes()
    content, section = section_of(data, subject_of(RedNeedsGreen(), data.classes.names, name="rule"))
    # Base [[6, 2], [0, 8]]: green 6 of 8, red 8 of 10. Without green no red is found; without red nothing changes.
    assert content["baseline_iou"] == [0.75, 0.8]
    assert content["erased_iou"] == [[None, 0.75], [0.0, None]]
    assert content["drop"] == [[None, 0.0], [0.8, None]]
    # Among red's own pixels all 8 were found: there it loses all.
    assert content["same_pixels_drop"] == [[None, 0.0], [1.0, None]]
    assert content["top3"] == {"green": ["red"], "red": ["green"]}
    assert (content["star_iou"], content["star_drop"]) == ([0.75, 0.0], [0.0, 0.8])
    assert content["vulnerable"] == ["red"]
    assert content["largest_drops"] == [{"class": "red", "erased": "green", "drop": 0.8}]
    run = content["runs"][0]
    assert (run["miou"], run["miou_on_star"], run["miou_drop"]) == (pytest.approx(0.775), 0.375, 0.4)
    assert (run["vulnerable_miou"], run["miou_star"], run["vulnerable_drop"]) == (0.8, 0.0, 0.8)
    assert (content["images"], content["evaluations"], content["planned"]) == (1, 3, 3)
    assert (content["left_out"], content["never_erased"], content["fill_rgb"]) == ([], [], [159, 96, 0])
    assert section.pictures.keys() == {"co_location/drop-0.png"} == {run["picture"]}


def random_result(count: int, absent: int, seed: int = 0) -> AuditResult:
    """Counts in which no class ``absent`` occurs, neither in the truth nor in the prediction."""
    draws = np.random.default_rng(seed)
    base = draws.integers(0, 50, (count, count))
    erased = draws.integers(0, 50, (count, count, count))
    for counts in (base[None], erased):
        counts[:, absent], counts[:, :, absent] = 0, 0
    for x in range(count):
        erased[x, x] = 0
    return AuditResult("run", base, erased, np.full((count, count), -1), 0, 0.0)


def literal_iou(counts, y):
    union = sum(counts[y, :]) + sum(counts[:, y]) - counts[y, y]
    return counts[y, y] / union if union else NAN


def test_matrices_as_a_literal_double_loop() -> None:
    result = random_result(5, absent=3)
    found = influence_of(result, (4, 4, 4, 0, 4))
    for y in range(5):
        for x in range(5):
            without = result.base.copy()
            without[x] = 0
            nothing = x in (y, 3)
            after = NAN if nothing else literal_iou(result.erased[x], y)
            before = literal_iou(result.base, y)
            np.testing.assert_equal(found.erased_iou[y, x], after)
            np.testing.assert_equal(found.drop[y, x], before - after)
            np.testing.assert_equal(found.same_pixels_drop[y, x], literal_iou(without, y) - after)
    assert math.isnan(found.baseline_iou[3])


def test_top_three_by_size_then_id_without_figures_that_do_not_exist() -> None:
    drop = np.array(
        [
            [NAN, 0.1, 0.3, 0.3, 0.2],
            [-0.1, NAN, -0.3, -0.2, NAN],
            [NAN, NAN, NAN, NAN, NAN],
            [0.0, 0.0, 0.0, NAN, 0.0],
            [0.1, NAN, 0.2, NAN, NAN],
        ]
    )
    assert top_influences(drop) == ((2, 3, 4), (0, 3, 2), (), (0, 1, 2), (2, 0))


def test_the_iou_without_what_a_class_leans_on() -> None:
    erased_iou = np.array([[NAN, 0.2, 0.4], [0.9, NAN, NAN], [NAN, NAN, NAN]])
    np.testing.assert_allclose(star_iou(erased_iou, ((1, 2), (0, 2), ())), [0.3, 0.9, NAN])


def test_the_vulnerable_half() -> None:
    assert most_vulnerable(np.array([0.1, 0.5, NAN, 0.3, 0.5])) == (1, 4)
    assert most_vulnerable(np.array([0.1, 0.5, 0.2])) == (1,)
    assert most_vulnerable(np.array([NAN, 0.2])) == ()


def test_the_first_run_chooses_for_all() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    first, second = random_result(6, absent=3, seed=1), random_result(6, absent=3, seed=2)
    images_with = (1, 1, 1, 0, 1, 1)
    plan = AuditPlan(Eraser(), 1, images_with, 4)
    classes = ClassTable(names=names)
    both = co_location_section(plan, [first, second], classes).content
    swapped = co_location_section(plan, [second, first], classes).content
    drop, matrix = influence_of(first, images_with).drop, influence_of(second, images_with).erased_iou
    known = [[x for x in range(6) if 3 not in (x, y) and x != y] for y in range(6)]
    top = [sorted(xs, key=lambda x, y=y: -drop[y, x])[:3] for y, xs in enumerate(known)]
    assert [both["top3"][name] for name in names] == [[names[x] for x in xs] for xs in top]
    assert both["top3"] != swapped["top3"]
    expected = [sum(matrix[y, x] for x in xs) / 3 if xs else None for y, xs in enumerate(top)]
    assert both["runs"][1]["star_iou"] == pytest.approx(expected)
    assert swapped["runs"][0]["star_iou"] != pytest.approx(expected)
    falls = [both["star_drop"][y] for y in range(6) if y != 3]
    assert [both["star_drop"][names.index(name)] for name in both["vulnerable"]] == sorted(falls, reverse=True)[:2]
    half = [names.index(name) for name in both["vulnerable"]]
    assert len(half) == 2
    assert both["runs"][1]["miou_star"] == pytest.approx(np.mean([expected[y] for y in half]))


def test_what_is_absent_is_said_and_left_out() -> None:
    data = ListedData(random_pairs([(6, 6), (7, 5)], [(0, 1), (0, 1, 255)]), ("a", "b", "c"))
    only_two = WideView(3)
    only_two.classifier.bias.data[2] = -1e6
    content, _ = section_of(data, subject_of(only_two, data.classes.names))
    assert content["left_out"] == content["never_erased"] == ["c"]
    assert content["baseline_iou"][2] is None
    assert [row[2] for row in content["erased_iou"]] == [None] * 3
    assert content["top3"]["c"] == []
    assert content["runs"][0]["miou"] == pytest.approx(np.mean(content["baseline_iou"][:2]))


def test_one_class_alone_has_nobody_to_lean_on() -> None:
    data = ListedData(random_pairs([(6, 6)], [(1, 255)]), ("a", "b"))
    content, _ = section_of(data, subject_of(WideView(2), data.classes.names))
    run = content["runs"][0]
    # The other class is in no image: erased nowhere, so that no figure of class b exists beside its IoU.
    assert content["top3"]["b"] == []
    assert content["star_iou"][1] is None
    assert content["planned"] == 1
    assert run["miou_star"] is None
