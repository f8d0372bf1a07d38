"""Pictures of the strongest links: which image is taken, what is counted in it, and how many there are."""

from __future__ import annotations

import io
import json

import numpy as np
from audit_cases import GREEN, RED, Counting, ListedData, RedNeedsGreen, WideView, random_pairs, subject_of
from PIL import Image

from dropclass_deploy.analysis.co_location import CoLocationAudit, co_location_section, plan_audit, strongest_links
from dropclass_deploy.analysis.subject import sweep


def coloured(red_rows: int):
    """6×8: green above, ``red_rows`` rows of red below."""
    truth = np.zeros((6, 8), dtype=np.uint8)
    truth[6 - red_rows :] = 1
    return np.where(truth[..., None] == 1, np.uint8(RED), np.uint8(GREEN)), truth


def red_in(rows) -> ListedData:
    return ListedData([coloured(count) for count in rows], ("green", "red"))


def audited(data, indices, *subjects):
    plan = plan_audit(data, indices)
    audits = [CoLocationAudit(subject, plan) for subject in subjects]
    for subject, audit in zip(subjects, audits, strict=True):
        sweep(subject, data, indices, [audit])
    return plan, [audit.result() for audit in audits]


def test_the_image_that_loses_most_is_shown_with_its_pixels() -> None:
    data = red_in([1, 2, 4, 4, 3] + [1] * 15)
    subjects = [subject_of(RedNeedsGreen(), data.classes.names, name=name) for name in ("first", "second")]
    plan, results = audited(data, range(20), *subjects)
    examples = strongest_links(subjects, data, plan, results)
    # Green loses nothing; of the two images with four red rows the first.
    assert [example.content for example in examples] == [
        {
            "class": "red",
            "erased": "green",
            "image": "image_2",
            "pixels": 32,
            "runs": [{"name": "first", "before": 32, "after": 0}, {"name": "second", "before": 32, "after": 0}],
        }
    ]
    # Two tiles of 240 pixels and a gap; the photograph and one row a run, 180 pixels each.
    assert Image.open(io.BytesIO(examples[0].picture)).size == (486, 3 * 180 + 2 * 6)
    section = co_location_section(plan, results, data.classes, examples)
    content = json.loads(json.dumps(section.content))
    assert content["examples"][0]["picture"] in section.pictures
    assert content["example_evaluations"] == 2


def test_the_clearest_image_does_not_depend_on_the_order() -> None:
    data = red_in([2, 4, 1, 4])
    subject = subject_of(RedNeedsGreen(), data.classes.names)
    for indices in ((0, 1, 2, 3), (3, 2, 1, 0)):
        assert audited(data, indices, subject)[1][0].clearest.tolist() == [[-1, 1], [-1, -1]]


def test_erased_pixels_are_black_and_the_class_is_outlined() -> None:
    data = red_in([3] * 20)
    subject = subject_of(RedNeedsGreen(), data.classes.names)
    plan, results = audited(data, range(20), subject)
    (example,) = strongest_links([subject], data, plan, results)
    sheet = np.array(Image.open(io.BytesIO(example.picture)))
    before, after = sheet[186:, :240], sheet[186:, 246:]
    green, red = (np.array(colour) for colour in data.classes.palette)
    assert (before[10, 100] == green).all()
    assert (before[150, 100] == red).all()
    assert (after[10, 100] == 0).all()
    assert (after[150, 100] == green).all()
    assert (before[90, 5:235] == 255).all()


def test_examples_add_a_twentieth_of_the_predictions_at_most() -> None:
    names = ("a", "b", "c", "d", "e")
    for images in (1, 6, 12, 30):
        data = ListedData(random_pairs([(8, 8)] * images, [range(5)] * images), names)
        network = Counting(WideView(5))
        subject = subject_of(network, names)
        plan, results = audited(data, range(images), subject)
        assert network.images == plan.evaluations
        examples = strongest_links([subject], data, plan, results)
        # Distinct classes that lost something; this network knows few.
        assert bool(examples) == (plan.evaluations >= 40)
        assert len(examples) <= min(3, plan.evaluations // 40)
        assert network.images == plan.evaluations + 2 * len(examples) <= 1.05 * plan.evaluations
        assert len({example.content["class"] for example in examples}) == len(examples)
