"""The decision rule, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.parity.counts import PairedCounts
from dropclass_deploy.serving.parity.rule import (
    NON_INFERIORITY,
    STRICT,
    ClassFigures,
    ClassVerdict,
    check_allowed,
    judge,
    measure_classes,
    overall,
)

TABLE = ClassTable(names=("road", "pole"), rare=(1,))


def figures(
    delta: float = 0.0,
    interval: tuple[float, float] = (0.0, 0.0),
    *,
    images: int = 10,
    pixels: int = 1000,
    rare: bool = False,
) -> ClassFigures:
    return ClassFigures("pole", rare, 0.5, 0.5 + delta, interval, images, pixels)


@pytest.mark.parametrize(
    ("delta", "verdict"),
    [
        (0.0, "pass"),
        (0.0009, "pass"),
        (-0.001, "pass"),
        (0.001, "pass"),
        (0.0011, "fail"),
        (-0.0011, "fail"),
        (0.2, "fail"),
    ],
)
def test_strict_rule_is_two_sided_at_a_tenth_of_a_point(delta: float, verdict: str) -> None:
    judged = judge(STRICT, figures(delta))
    assert (judged.verdict, judged.margin) == (verdict, 0.001)
    assert bool(judged.reason) == (verdict == "fail")


def test_strict_rule_judges_few_images_too() -> None:
    assert judge(STRICT, figures(images=1, pixels=3)).verdict == "pass"
    assert judge(STRICT, figures(-0.5, images=1, pixels=3)).verdict == "fail"


@pytest.mark.parametrize(
    ("interval", "rare", "verdict"),
    [
        ((-0.0049, 0.01), False, "pass"),
        ((-0.0051, 0.01), False, "insufficient"),
        ((-0.02, -0.0051), False, "fail"),
        ((-0.02, -0.0049), False, "insufficient"),
        ((-0.0029, 0.01), True, "pass"),
        ((-0.0031, 0.01), True, "insufficient"),
        ((-0.02, -0.0031), True, "fail"),
        ((0.001, 0.3), False, "pass"),
        ((-0.005, 0.0), False, "insufficient"),
    ],
)
def test_non_inferiority_by_the_ends_of_the_interval(interval: tuple[float, float], rare: bool, verdict: str) -> None:
    judged = judge(NON_INFERIORITY, figures(interval=interval, rare=rare))
    assert (judged.verdict, judged.margin) == (verdict, 0.003 if rare else 0.005)


@pytest.mark.parametrize(
    ("images", "pixels", "verdict"),
    [(10, 1000, "pass"), (9, 1000, "insufficient"), (10, 999, "insufficient"), (1, 10**6, "insufficient")],
)
def test_too_little_truth_is_insufficient(images: int, pixels: int, verdict: str) -> None:
    judged = judge(NON_INFERIORITY, figures(images=images, pixels=pixels))
    assert judged.verdict == verdict
    if verdict == "insufficient":
        assert f"{images} images with {pixels} truth pixels are too few" in judged.reason


def test_too_little_truth_hides_no_verdict_behind_a_bad_interval() -> None:
    assert judge(NON_INFERIORITY, figures(-0.5, (-0.6, -0.4), images=9)).verdict == "insufficient"


@pytest.mark.parametrize("rule", [STRICT, NON_INFERIORITY])
def test_absent_class_is_reported_and_not_judged(rule: str) -> None:
    missing = ClassFigures("pole", False, math.nan, math.nan, (math.nan, math.nan), 0, 0)
    assert judge(rule, missing).verdict == "absent"
    invented = ClassFigures("pole", False, math.nan, 0.0, (math.nan, math.nan), 0, 0)
    assert judge(rule, invented).verdict == "absent"


def verdicts(*names: str) -> list[ClassVerdict]:
    return [ClassVerdict(ClassFigures(f"c{i}", False, 0, 0, (0, 0), 1, 1), 0.0, name) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("each", "allowed", "failed", "expected"),
    [
        (["pass", "pass"], (), False, "pass"),
        (["pass", "insufficient"], (), False, "insufficient"),
        (["insufficient", "fail"], (), False, "fail"),
        (["pass", "absent"], (), False, "pass"),
        (["absent", "absent"], (), False, "insufficient"),
        (["pass", "insufficient"], ("c1",), False, "pass"),
        (["insufficient", "insufficient"], ("c1",), False, "insufficient"),
        (["pass", "fail"], ("c1",), False, "fail"),
        (["pass", "pass"], (), True, "fail"),
        (["absent"], (), True, "fail"),
    ],
)
def test_whole_is_the_worst_of_the_classes(
    each: list[str], allowed: tuple[str, ...], failed: bool, expected: str
) -> None:
    assert overall(verdicts(*each), allowed, failed=failed) == expected


def test_unknown_allowed_class_is_a_mistake() -> None:
    check_allowed(("pole",), TABLE)
    with pytest.raises(UserError, match=r"no class 'pool' to allow.*road, pole"):
        check_allowed(("pole", "pool"), TABLE)


def test_figures_of_a_worked_case() -> None:
    # Two images; class road: truth 100 and 50, the reference finds 90 and 50, the candidate 80 and 50, nothing invented.
    counts = PairedCounts(
        truth=np.array([[100, 0], [50, 20]]),
        reference_tp=np.array([[90, 0], [50, 10]]),
        reference_predicted=np.array([[90, 0], [50, 10]]),
        candidate_tp=np.array([[80, 0], [50, 20]]),
        candidate_predicted=np.array([[80, 0], [50, 20]]),
        differing=20,
        pixels=1000,
    )
    road, pole = measure_classes(counts, TABLE, resamples=400, seed=0)
    # A Δ of two quotients, each rounded once.
    assert road.delta == pytest.approx(130 / 150 - 140 / 150, abs=1e-15)
    assert (road.images, road.pixels, road.rare) == (2, 150, False)
    assert (pole.iou_reference, pole.iou_candidate, pole.images, pole.pixels, pole.rare) == (0.5, 1.0, 1, 20, True)
    # Resamples of two images: only the first (Δ −0.1), only the second (Δ 0), or both.
    assert road.interval == pytest.approx((-0.1, 0.0), abs=1e-15)
    # Pole is only in the second image: each resample that has it gives Δ 0.5.
    assert pole.interval == (0.5, 0.5)
    assert counts.disagreement == 0.02
