"""The comparison of two runs: by hand, and against a literal bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from painted_runs import PaintedSplit, class_table, painted_subject, rendered, through_json

from dropclass_deploy.analysis.comparison import comparison_section, headline
from dropclass_deploy.analysis.comparison.draws import chance, draw_differences, interval
from dropclass_deploy.analysis.comparison.verdicts import holm, verdict_of
from dropclass_deploy.analysis.subject import image_ious, image_means, sweep
from dropclass_deploy.core.metrics import confusion_matrix, scores
from dropclass_deploy.serving.parity.bootstrap import delta_intervals, resample_weights
from dropclass_deploy.serving.parity.counts import count_image, pair_counts

IGNORE = 255
TRUTH = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [255, 0, 0, 0]]
BASELINE = [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
CANDIDATE = [[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]


def section_of(truths, predictions, classes, **options):
    split = PaintedSplit(truths, predictions, classes)
    names = ("ce", "dropclass", "other")[: len(predictions)]
    subjects = [painted_subject(name, channel, classes) for channel, name in enumerate(names)]
    indices = range(len(split))
    confusions = [sweep(subject, split, indices) for subject in subjects]
    section = comparison_section(subjects, split, indices, confusions, **options)
    return section, rendered("comparison", section, classes, names)


def noisy(count, classes, seed, wrong=0.3, shape=(20, 20)):
    """Truths, and predictions of which a share is wrong."""
    generator = np.random.default_rng(seed)
    truths = [generator.integers(0, classes, size=shape) for _ in range(count)]
    masks = [np.where(generator.random(shape) < wrong, generator.integers(0, classes, size=shape), t) for t in truths]
    return truths, masks


def confusions_of(truths, masks, classes):
    return np.stack([confusion_matrix(t, m, classes) for t, m in zip(truths, masks, strict=True)])


def test_two_classes_of_four_by_four_by_hand():
    section, _ = section_of([TRUTH], [[BASELINE], [CANDIDATE]], class_table(2, [1]), resamples=50)
    run = through_json(section.content)["runs"][0]
    # Class 0 has 11 pixels and class 1 four. Baseline: 11 right and 3 too many, 1 right. Candidate: 10 right and 1 too
    # many, 3 right and 1 too many.
    first, second = run["classes"]
    assert (first["baseline"], first["candidate"]) == (pytest.approx(11 / 14), pytest.approx(10 / 12))
    assert (second["baseline"], second["candidate"]) == (pytest.approx(1 / 4), pytest.approx(3 / 5))
    assert (first["pixels"], second["pixels"], second["images"]) == (11, 4, 1)
    assert run["miou"]["delta"] == pytest.approx((10 / 12 - 11 / 14 + 3 / 5 - 1 / 4) / 2)
    assert run["rare_miou"]["delta"] == pytest.approx(3 / 5 - 1 / 4)
    # One image can only be drawn again and again: no interval, and no verdict.
    assert second["interval"] is run["miou"]["interval"] is run["per_image"]["interval"] is None
    assert {row["verdict"] for row in [*run["classes"], run["miou"], run["rare_miou"]]} == {"cannot tell"}
    assert "one image has no interval" in section.content["sentences"][0]
    assert run["images"] == [
        {
            "key": "image0",
            "baseline": pytest.approx((11 / 14 + 1 / 4) / 2),
            "candidate": pytest.approx((10 / 12 + 3 / 5) / 2),
            "delta": pytest.approx(run["miou"]["delta"]),
        }
    ]
    assert run["per_image"]["better"] == 1


def test_the_draws_are_those_of_a_literal_bootstrap():
    classes, rare = 4, [2, 3]
    truths, first = noisy(7, 3, seed=0)  # the fourth class is in no truth
    truths[2][:] = 0  # classes 1 and 2 are missing from an image
    second = noisy(7, 4, seed=1)[1]
    one, other = confusions_of(truths, first, classes), confusions_of(truths, second, classes)
    draws = draw_differences(one, other, rare, resamples=30, seed=3)
    weights = resample_weights(7, 30, np.random.default_rng(3))
    for number in range(30):
        drawn = [image for image in range(7) for _ in range(weights[number, image])]
        pooled = [sum(each[image] for image in drawn) for each in (one, other)]
        before, after = (scores(confusion).iou for confusion in pooled)
        deltas = [after[index] - before[index] if pooled[0][index].sum() else float("nan") for index in range(classes)]
        np.testing.assert_allclose(draws.classes[number], deltas, atol=1e-12)
        present = [index for index in range(classes) if pooled[0][index].sum()]
        assert draws.miou[number] == pytest.approx(np.mean([deltas[index] for index in present]))
        assert draws.rare_miou[number] == pytest.approx(deltas[2])
        own = [np.mean([_iou(other[i], c) - _iou(one[i], c) for c in range(classes) if one[i][c].sum()]) for i in drawn]
        assert draws.image_mean[number] == pytest.approx(np.mean(own))


def _iou(confusion, index):
    hits = confusion[index, index]
    return hits / (confusion[index].sum() + confusion[:, index].sum() - hits)


def test_intervals_are_those_of_the_parity_gate():
    truths, first = noisy(12, 3, seed=0)
    second = noisy(12, 3, seed=5)[1]
    one, other = confusions_of(truths, first, 3), confusions_of(truths, second, 3)
    counts = pair_counts([count_image(t, a, b, 3, IGNORE) for t, a, b in zip(truths, first, second, strict=True)])
    draws = draw_differences(one, other, [], resamples=600, seed=2)
    ours = [interval(draws.classes[:, index]) for index in range(3)]
    np.testing.assert_array_equal(ours, delta_intervals(counts, resamples=600, seed=2))


def test_image_figures_by_hand():
    confusions = np.array([[[3, 1], [0, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    np.testing.assert_array_equal(image_ious(confusions)[0], [3 / 4, np.nan])
    np.testing.assert_allclose(image_means(confusions), [3 / 4, np.nan, 1 / 3])


def test_chance_counts_the_rarer_side():
    assert chance(np.array([1.0] * 99)) == 2 / 100
    assert chance(np.array([1.0] * 95 + [-1.0] * 4)) == 2 * 5 / 100
    assert chance(np.zeros(99)) == 1
    assert chance(np.array([np.nan])) == 1
    assert chance(np.array([-1.0] * 98 + [np.nan] * 5 + [1.0])) == 4 / 100


def test_holm_by_hand():
    # 0.01 ≤ 0.05/4, 0.015 ≤ 0.05/3, 0.03 > 0.05/2: there it stops, though 0.04 would pass at the last step.
    assert holm([0.04, 0.01, 0.03, 0.015]) == [False, True, False, True]
    assert holm([]) == []
    assert holm([0.05]) == [True]
    assert holm([0.03, 0.03]) == [False, False]


def test_a_difference_is_called_only_when_certain_and_its_interval_agrees():
    assert verdict_of(0.1, (0.01, 0.2), certain=True) == "better"
    assert verdict_of(-0.1, (-0.2, -0.01), certain=True) == "worse"
    assert verdict_of(0.1, (0.01, 0.2), certain=False) == "cannot tell"
    assert verdict_of(0.1, (-0.01, 0.2), certain=True) == "cannot tell"


def test_what_got_better_and_worse_is_said_in_words():
    classes = class_table(3, [2])
    truths, first = noisy(20, 3, seed=0)
    second = [np.where(t == 0, 0, m) for t, m in zip(truths, first, strict=True)]  # class 0 is always right
    second = [np.where((t == 1) & (np.arange(20) % 2 == 0), 2, m) for t, m in zip(truths, second, strict=True)]
    section, page = section_of(truths, [first, second], classes, resamples=500)
    content = through_json(section.content)
    run = content["runs"][0]
    assert [row["verdict"] for row in run["classes"]] == ["better", "worse", "worse"]
    assert run["judged"] == run["alone"] == 3
    assert run["by_chance"] == pytest.approx(0.15)
    joined = " ".join(content["sentences"])
    assert "Better with dropclass: class0, +" in joined
    assert "Worse with dropclass: class1" in joined
    assert "two trained networks on these images" in content["sentences"][-1]
    assert content["sentences"][0].startswith("dropclass against ce, on the same 20 images of val: mIoU ")
    assert all(sentence.replace("'", "&#39;") in page for sentence in content["sentences"])


def test_rare_verdicts_of_many_classes_need_more_than_their_own_interval():
    """Networks that differ by chance alone: over many pairs, some class stands out alone, hardly ever after Holm."""
    alone = called = 0
    for seed in range(20):
        truths, first = noisy(12, 8, seed=seed, shape=(40, 40))
        second = [
            np.where(np.random.default_rng(seed + 99).random(t.shape) < 0.5, m, t)
            for t, m in zip(truths, first, strict=True)
        ]
        other = [
            np.where(np.random.default_rng(seed + 77).random(t.shape) < 0.5, m, t)
            for t, m in zip(truths, first, strict=True)
        ]
        classes = class_table(8)
        draws = draw_differences(confusions_of(truths, second, 8), confusions_of(truths, other, 8), [], resamples=2000)
        spans = [interval(draws.classes[:, index]) for index in range(len(classes))]
        alone += sum(low > 0 or high < 0 for low, high in spans)
        called += sum(holm([chance(draws.classes[:, index]) for index in range(len(classes))]))
    assert alone > 0
    assert called < alone / 2


def test_a_mean_is_not_judged_where_no_class_is():
    """Nine images that all agree: their own spread is nothing, and they are too few to say so."""
    truths = [np.repeat([0, 1], 2000).reshape(40, 100)] * 9
    worse = [np.where(np.arange(4000).reshape(40, 100) % 50 == 0, 1 - truth, truth) for truth in truths]
    few = section_of(truths, [worse, truths], class_table(2, [1]), resamples=50)[0].content["runs"][0]
    assert (few["miou"]["verdict"], few["miou"]["reason"]) == ("cannot tell", "fewer than 10 images")
    truths, worse = truths + truths[:1], worse + worse[:1]
    enough = section_of(truths, [worse, truths], class_table(2, [1]), resamples=50)[0].content["runs"][0]
    assert (enough["miou"]["verdict"], enough["rare_miou"]["verdict"]) == ("better", "better")


def test_the_rare_mean_is_not_judged_where_no_rare_class_is():
    truth = np.zeros((40, 100), dtype=int)
    truth[0, :9] = 1  # in ten images 90 pixels
    worse = np.where(np.arange(4000).reshape(40, 100) % 7 == 0, 1 - truth, truth)
    run = section_of([truth] * 10, [[worse] * 10, [truth] * 10], class_table(2, [1]), resamples=50)[0].content["runs"][
        0
    ]
    assert run["miou"]["verdict"] == "better"
    assert (run["rare_miou"]["verdict"], run["rare_miou"]["reason"]) == (
        "cannot tell",
        "none of its classes can be judged",
    )


def test_equal_runs_differ_in_nothing():
    truths, masks = noisy(12, 2, seed=0)
    section, _ = section_of(truths, [masks, masks], class_table(2), resamples=50)
    run = through_json(section.content)["runs"][0]
    assert [row["delta"] for row in run["classes"]] == [0, 0]
    assert {row["verdict"] for row in run["classes"]} == {"cannot tell"}
    assert run["miou"]["verdict"] == "cannot tell"
    assert run["images"] == []
    assert run["per_image"] == {"mean_delta": 0, "interval": [0, 0], "better": 0, "worse": 0, "equal": 12}
    assert run["rare_miou"] == {
        "baseline": None,
        "candidate": None,
        "delta": None,
        "interval": None,
        "verdict": "cannot tell",
        "reason": "none of its classes can be judged",
    }


def test_too_few_images_or_pixels_are_not_judged():
    truths = [np.zeros((40, 40), dtype=int) for _ in range(12)]
    for image in range(9):
        truths[image][:20] = 1  # nine images, many pixels
    for image in range(12):
        truths[image][39, :4] = 2  # twelve images, few pixels
    wrong = [np.where(truth == 0, 0, 0) for truth in truths]
    section, _ = section_of(truths, [wrong, truths], class_table(4), resamples=50)
    content = through_json(section.content)
    rows = content["runs"][0]["classes"]
    assert [row["verdict"] for row in rows] == ["better", "cannot tell", "cannot tell", "cannot tell"]
    assert "fewer than 10 images" in rows[1]["reason"]
    assert rows[1]["reason"] == rows[2]["reason"]
    assert rows[3] == {
        "name": "class3",
        "rare": False,
        "baseline": None,
        "candidate": None,
        "delta": None,
        "interval": None,
        "images": 0,
        "pixels": 0,
        "alone": False,
        "chance": None,
        "verdict": "cannot tell",
        "reason": "no pixel in the truth",
    }
    joined = " ".join(content["sentences"])
    assert "Too little of it to judge" in joined
    assert "Not in the truth of these images: class3." in joined


def test_all_ignored_compares_nothing():
    blank = np.full((4, 4), IGNORE)
    section, _ = section_of([blank] * 3, [[blank * 0] * 3] * 2, class_table(2, [1]), resamples=20)
    run = through_json(section.content)["runs"][0]
    assert run["miou"]["delta"] is None
    assert run["per_image"]["mean_delta"] is None
    assert run["judged"] == 0


def test_a_third_run_is_held_against_the_first_and_the_caution_is_said_once():
    truths, masks = noisy(3, 2, seed=0)
    section, _ = section_of(truths, [masks, truths, truths], class_table(2), resamples=20)
    assert section.content["against"] == "ce"
    assert [run["name"] for run in section.content["runs"]] == ["dropclass", "other"]
    assert sum("two trained networks" in sentence for sentence in section.content["sentences"]) == 1


def test_one_run_is_described_alone():
    section, page = section_of([TRUTH], [[BASELINE]], class_table(2, [1]))
    content = through_json(section.content)
    assert content["against"] is None
    assert content["runs"] == []
    assert content["sentences"] == [
        "ce on 1 image of val: mIoU 51.8 %, over the rare classes 25.0 %.",
        "Weakest by IoU: class1 (25.0 %), class0 (78.6 %).",
        "Most frequent confusion: class1 taken for class0, 3 pixels, 100.0 % of all errors.",
        "With one run there is nothing to compare it with.",
    ]
    assert "In short" in page


def test_one_run_without_an_error_or_a_label_can_be_described():
    for truth in (np.zeros((4, 4)), np.full((4, 4), IGNORE)):
        section, _ = section_of([truth], [[np.zeros((4, 4))]], class_table(2))
        assert "confusion:" not in " ".join(section.content["sentences"])


def test_the_headline_adds_calibration_where_there_is_one():
    section, _ = section_of([TRUTH], [[BASELINE]], class_table(2))
    parts = {"comparison": section.content}
    assert headline(parts) == section.content["sentences"]
    parts["calibration"] = {"runs": [{"name": "ce", "ece": 0.0312}, {"name": "other", "ece": None}]}
    assert headline(parts)[-1] == "Expected calibration error of the winning class, in per cent: ce 3.1."
