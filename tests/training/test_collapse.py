"""Collapsed classes, on series worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dropclass_deploy.training.records.collapse import Collapse, collapsed, newly_collapsed


def _records(**series: list[float | None]) -> list[dict[str, Any]]:
    length = len(next(iter(series.values())))
    return [
        {"kind": "val", "step": 10 * (index + 1), "miou": 0.5, "iou": {name: s[index] for name, s in series.items()}}
        for index in range(length)
    ]


def _named_at(series: list[float | None]) -> list[int]:
    """The validations (from 0) at which the class is named, when each is looked at as it comes."""
    records = _records(sign=series)
    return [index for index in range(len(series)) if newly_collapsed(records[: index + 1])]


@pytest.mark.parametrize(
    ("series", "named"),
    [
        pytest.param([0.4, 0.1, 0.1, 0.1], [3], id="at the third"),
        pytest.param([0.4, 0.1, 0.1, 0.1, 0.1, 0.0], [3], id="once"),
        pytest.param([0.4, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1], [6], id="half of the best is enough to start counting anew"),
        pytest.param([0.4, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1], [3, 7], id="again after it recovered"),
        pytest.param([0.4, 0.1, 0.1], [], id="two are noise"),
        pytest.param([0.09, 0.0, 0.0, 0.0], [], id="never learnt"),
        pytest.param([0.10, 0.0, 0.0, 0.0], [3], id="barely learnt"),
        pytest.param([0.0, 0.0, 0.0, 0.0], [], id="always zero"),
        pytest.param([0.1, 0.2, 0.4, 0.19, 0.19, 0.19], [5], id="best so far, not the first"),
        pytest.param([0.4, 0.1, None, 0.1, None, 0.1, None], [5], id="null says nothing"),
        pytest.param([None, None], [], id="only nulls"),
    ],
)
def test_when_a_class_is_named(series: list[float | None], named: list[int]) -> None:
    assert _named_at(series) == named


def test_says_best_and_now() -> None:
    (found,) = newly_collapsed(_records(road=[0.9, 0.9, 0.9, 0.9, 0.9], sign=[0.2, 0.412, 0.1, 0.05, 0.031]))
    assert found == Collapse("sign", best=0.412, best_step=20, now=0.031, step=50, since=30, validations=3)
    assert found.note() == (
        "class sign has collapsed: IoU 3.1 at step 50, its best was 41.2 at step 20 "
        "(below half of it for 3 validations)"
    )


def test_all_that_are_down_in_the_order_of_the_class_table() -> None:
    records = _records(b=[0.4, 0.1, 0.1, 0.1, 0.1], c=[0.5] * 5, a=[0.4, 0.4, 0.1, 0.1, 0.1])
    assert [(one.name, one.validations) for one in collapsed(records)] == [("b", 4), ("a", 3)]
    assert [one.name for one in newly_collapsed(records)] == ["a"]


def test_other_records_and_none_at_all() -> None:
    assert newly_collapsed([]) == ()
    train = [{"kind": "train", "step": step, "loss": 1.0} for step in range(100)]
    assert newly_collapsed(train) == ()
    assert len(newly_collapsed([*train, *_records(sign=[0.4, 0.1, 0.1, 0.1])])) == 1


def test_a_validation_repeated_after_a_resume_counts_once() -> None:
    records = _records(sign=[0.4, 0.1, 0.1])
    assert newly_collapsed([*records, records[-1]]) == ()


def test_a_class_that_appears_later() -> None:
    records = _records(road=[0.9] * 4)
    for record, value in zip(records, [None, 0.4, 0.1, 0.1], strict=True):
        if value is not None:
            record["iou"]["sign"] = value
    more = {"kind": "val", "step": 99, "iou": {"road": 0.9, "sign": 0.1}}
    assert [one.name for one in newly_collapsed([*records, more])] == ["sign"]
