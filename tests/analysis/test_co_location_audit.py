"""The co-location audit: counts by hand and by a literal loop, what it costs, and that nothing depends on the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from audit_cases import (
    GREEN,
    PLAIN,
    RED,
    Counting,
    ListedData,
    RedNeedsGreen,
    WideView,
    random_pairs,
    subject_of,
)

from dropclass_deploy.analysis.co_location import CoLocationAudit, plan_audit, planned_evaluations
from dropclass_deploy.analysis.co_location.audit import duration
from dropclass_deploy.analysis.subject import sweep
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.core.sliding_window import Window

NAMES = ("one", "two", "three")
# The third has no "two", the fourth one class alone, the fifth nothing labelled; class 2 is in two images.
SIZES = ((9, 7), (8, 8), (6, 11), (5, 5), (4, 4))
IDS = ((0, 1, 2, 255), (0, 1), (0, 2), (1, 255), (255,))


def audited(subject, data, fill="dataset_mean", indices=None, **keys):
    indices = range(len(data)) if indices is None else indices
    plan = plan_audit(data, indices, fill, **keys)
    audit = CoLocationAudit(subject, plan)
    sweep(subject, data, indices, [audit])
    return plan, audit.result()


def by_hand():
    """4×4: the upper half is class 0 and green, the lower class 1 and red; two green pixels are painted red."""
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    truth = np.repeat(np.array([0, 0, 1, 1], dtype=np.uint8)[:, None], 4, axis=1)
    image[truth == 0], image[truth == 1] = GREEN, RED
    image[0, :2] = RED
    return image, truth


def literal_counts(subject, data, fill):
    """(C, C, C) by the definition: a copy of the split a class, every copy predicted, pixel by pixel."""
    plan = plan_audit(data, range(len(data)), fill)
    count = len(data.classes)
    counts = np.zeros((count, count, count), dtype=np.int64)
    for erased_class in range(count):
        for index in range(len(data)):
            image, truth = data.image(index), data.mask(index)
            erased = truth == erased_class
            copy = plan.eraser(image, erased, index, erased_class) if erased.any() else image
            mask = subject.segment(copy)
            for row, column in np.ndindex(*truth.shape):
                if truth[row, column] not in (255, erased_class):
                    counts[erased_class, truth[row, column], mask[row, column]] += 1
    return counts


def test_two_classes_by_hand() -> None:
    data = ListedData([by_hand()], ("green", "red"))
    plan, result = audited(subject_of(RedNeedsGreen(), data.classes.names), data)
    # Six of 16 pixels are green and ten red.
    assert plan.eraser.mean == (159, 96, 0)
    assert result.base.tolist() == [[6, 2], [0, 8]]
    # Without green there is no red; without red the green half stays as it was.
    assert result.erased.tolist() == [[[0, 0], [8, 0]], [[6, 2], [0, 0]]]
    assert (plan.evaluations, result.evaluations) == (3, 3)


@pytest.mark.parametrize("fill", ["dataset_mean", "image_mean", "noise", "inpaint"])
@pytest.mark.parametrize(
    "preprocess",
    [
        PLAIN,
        Preprocess(mean=(0, 0, 0), std=(1, 1, 1), size=(6, 10)),
        Preprocess(mean=(0, 0, 0), std=(1, 1, 1), window=Window(height=5, width=5)),
    ],
    ids=["as it is", "resized", "in windows"],
)
def test_as_the_literal_loop(fill: str, preprocess: Preprocess) -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    subject = subject_of(WideView(3), NAMES, preprocess)
    result = audited(subject, data, fill)[1]
    np.testing.assert_array_equal(result.erased, literal_counts(subject, data, fill))
    assert (result.erased != result.base).any()


def test_the_unerased_counts_are_those_of_the_pass() -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    subject = subject_of(WideView(3), NAMES)
    np.testing.assert_array_equal(audited(subject, data)[1].base, sweep(subject, data, range(len(data))).sum(axis=0))


def test_it_costs_a_prediction_for_each_class_of_each_image_and_one_pass() -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    network = Counting(WideView(3))
    plan, result = audited(subject_of(network, NAMES), data)
    # Classes an image: 3, 2, 2, 1 and none; the one alone needs no prediction, for nothing would be left to count.
    assert plan.images_with == (3, 3, 2)
    assert network.images == result.evaluations == plan.evaluations == planned_evaluations(data, range(5)) == 12
    assert network.images <= 1.15 * (sum(plan.images_with) + plan.images)


def test_a_class_in_no_image_is_erased_nowhere() -> None:
    data = ListedData(random_pairs(SIZES[:2], ((0, 1), (0, 1))), NAMES)
    plan, result = audited(subject_of(WideView(3), NAMES), data)
    assert plan.images_with == (2, 2, 0)
    np.testing.assert_array_equal(result.erased[2], result.base)


@pytest.mark.parametrize("fill", ["dataset_mean", "image_mean", "noise", "inpaint"])
def test_the_order_of_images_changes_nothing(fill: str) -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    subject = subject_of(WideView(3), NAMES)
    forwards, backwards = (audited(subject, data, fill, indices)[1] for indices in ((0, 1, 2, 3), (3, 2, 1, 0)))
    np.testing.assert_array_equal(forwards.erased, backwards.erased)


def test_only_the_images_asked_for() -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    subject = subject_of(WideView(3), NAMES)
    plan, result = audited(subject, data, indices=(2,))
    assert plan.images_with == (1, 0, 1)
    assert result.base.sum() == 6 * 11
    assert plan.eraser.mean == tuple(np.rint(data.image(2).reshape(-1, 3).mean(axis=0)))


def test_nothing_labelled() -> None:
    data = ListedData(random_pairs([(4, 4)], [(255,)]), NAMES)
    plan, result = audited(subject_of(WideView(3), NAMES), data)
    assert plan.evaluations == result.evaluations == 1
    assert not result.erased.any()


def test_the_network_stays_as_it_was() -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    model = WideView(3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    audited(subject_of(model, NAMES), data)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_it_says_what_is_to_come() -> None:
    data = ListedData(random_pairs(SIZES, IDS), NAMES)
    subject = subject_of(WideView(3), NAMES)
    plan, notes = plan_audit(data, range(5)), []
    assert "12 predictions a run, 24 for the 2 runs: 5 images as they are, 7 with one class erased" in plan.told(2)
    sweep(subject, data, range(5), [CoLocationAudit(subject, plan, notes.append)])
    assert len(notes) == 1
    assert notes[0].startswith("co-location audit of run: 4 more images with a class erased, about 0 s (")


@pytest.mark.parametrize(("seconds", "text"), [(42, "42 s"), (89, "89 s"), (420, "7 min"), (4800, "1 h 20 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
