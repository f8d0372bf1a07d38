"""The decision rule: may the candidate stand in for the reference, class by class?

* **strict** (both FP32 on the same engine): the masks differ at no more than 1e-4 of the pixels, and no class's IoU moves
  by more than 0.1 point either way.
* **non-inferiority** (lower precision or another engine): with the margin δ of 0.5 point of IoU, 0.3 for rare classes, and
  the 95 % bootstrap interval of ΔIoU: *pass* when its lower end is above −δ, *fail* when its upper end is below −δ, else
  *insufficient*. A class in fewer than 10 images or with fewer than 1,000 truth pixels is *insufficient* too: identical
  outputs on a handful of images give a false interval [0, 0].

A class that is absent from the truth is reported and not judged. All IoU figures are fractions: 0.001 is 0.1 point.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.serving.parity.bootstrap import RESAMPLES, delta_intervals
from dropclass_deploy.serving.parity.counts import PairedCounts

STRICT, NON_INFERIORITY = "strict", "non-inferiority"
PASS, INSUFFICIENT, FAIL, ABSENT = "pass", "insufficient", "fail", "absent"
SEVERITY = (PASS, INSUFFICIENT, FAIL)

MAX_DISAGREEMENT = 1e-4
SAME_NETWORK = 0.01
"""Share of pixels at which two files of one lowered network may differ: kernels that are fused otherwise round otherwise."""
STRICT_MARGIN = 0.001
MARGIN, RARE_MARGIN = 0.005, 0.003
MIN_IMAGES, MIN_PIXELS = 10, 1000
ROUNDING = 1e-12
"""A difference of two quotients of counts is off by less than 1e-15; a Δ of exactly the margin is within it."""


@dataclass(frozen=True)
class ClassFigures:
    """One class, measured: fractions; NaN where a figure does not exist."""

    name: str
    rare: bool
    iou_reference: float
    iou_candidate: float
    interval: tuple[float, float]
    images: int
    pixels: int

    @property
    def delta(self) -> float:
        """ΔIoU: candidate − reference."""
        return self.iou_candidate - self.iou_reference


@dataclass(frozen=True)
class ClassVerdict:
    """One class, judged.

    Attributes:
        figures: what was measured.
        margin: δ, or the two-sided bound of the strict rule.
        verdict: "pass", "fail", "insufficient" or "absent".
        reason: one sentence that explains a fail or an insufficient, else "".
    """

    figures: ClassFigures
    margin: float
    verdict: str
    reason: str = ""


def measure_classes(
    counts: PairedCounts, classes: ClassTable, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[ClassFigures, ...]:
    """The figures of every class, in id order."""
    reference, candidate = counts.reference_iou(), counts.candidate_iou()
    intervals = delta_intervals(counts, resamples=resamples, seed=seed)
    return tuple(
        ClassFigures(
            name=name,
            rare=classes.is_rare(index),
            iou_reference=float(reference[index]),
            iou_candidate=float(candidate[index]),
            interval=(float(intervals[index, 0]), float(intervals[index, 1])),
            images=int(np.count_nonzero(counts.truth[:, index])),
            pixels=int(counts.truth[:, index].sum()),
        )
        for index, name in enumerate(classes.names)
    )


def judge(rule: str, figures: ClassFigures) -> ClassVerdict:
    """The verdict on one class under ``STRICT`` or ``NON_INFERIORITY``."""
    return _judge_strict(figures) if rule == STRICT else _judge_non_inferiority(figures)


def _judge_strict(figures: ClassFigures) -> ClassVerdict:
    if figures.pixels == 0:
        return ClassVerdict(figures, STRICT_MARGIN, ABSENT)
    if abs(figures.delta) <= STRICT_MARGIN + ROUNDING:
        return ClassVerdict(figures, STRICT_MARGIN, PASS)
    reason = f"{figures.name}: IoU moved by {points(figures.delta)} points, and {points(STRICT_MARGIN)} either way is allowed"
    return ClassVerdict(figures, STRICT_MARGIN, FAIL, reason)


def _judge_non_inferiority(figures: ClassFigures) -> ClassVerdict:
    margin = RARE_MARGIN if figures.rare else MARGIN
    if figures.pixels == 0:
        return ClassVerdict(figures, margin, ABSENT)
    if figures.images < MIN_IMAGES or figures.pixels < MIN_PIXELS:
        reason = (
            f"{figures.name}: {figures.images} images with {figures.pixels} truth pixels are too few to judge; "
            f"{MIN_IMAGES} images and {MIN_PIXELS} pixels are needed"
        )
        return ClassVerdict(figures, margin, INSUFFICIENT, reason)
    lower, upper = figures.interval
    if lower > -margin:
        return ClassVerdict(figures, margin, PASS)
    span = f"the 95 % interval of ΔIoU [{points(lower)}, {points(upper)}] points"
    if upper < -margin:
        return ClassVerdict(figures, margin, FAIL, f"{figures.name}: {span} lies below the margin {points(-margin)}")
    return ClassVerdict(
        figures, margin, INSUFFICIENT, f"{figures.name}: {span} reaches beyond the margin {points(-margin)}"
    )


def overall(verdicts: Sequence[ClassVerdict], allow_insufficient: Collection[str], *, failed: bool) -> str:
    """The worst of the classes, "fail" when ``failed``; an allowed class's "insufficient" counts as a pass.

    "insufficient" when no class at all could be judged.
    """
    judged = [
        PASS if item.verdict == INSUFFICIENT and item.figures.name in allow_insufficient else item.verdict
        for item in verdicts
        if item.verdict != ABSENT
    ]
    if failed:
        return FAIL
    return max(judged, key=SEVERITY.index) if judged else INSUFFICIENT


def check_allowed(names: Collection[str], classes: ClassTable) -> None:
    """Raise UserError for a name that is no class: a typing mistake must not silently allow nothing."""
    unknown = [name for name in names if name not in classes.names]
    if unknown:
        raise UserError(
            f"there is no class {', '.join(map(repr, unknown))} to allow as insufficient",
            expected=f"names out of {', '.join(classes.names)}",
        )


def points(fraction: float) -> str:
    """A fraction of IoU in points, for sentences: 0.00512 → "0.512"."""
    return f"{100 * fraction:.4g}"
