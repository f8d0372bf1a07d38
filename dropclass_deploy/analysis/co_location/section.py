"""The audits of one or several runs as the part ``co_location`` of the analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropclass_deploy.analysis.co_location.audit import AuditResult
from dropclass_deploy.analysis.co_location.examples import Example
from dropclass_deploy.analysis.co_location.influence import (
    Figures,
    Influence,
    Top,
    influence_of,
    most_vulnerable,
    star_iou,
    top_influences,
)
from dropclass_deploy.analysis.co_location.plan import AuditPlan
from dropclass_deploy.analysis.matrix_picture import largest_size, signed_picture
from dropclass_deploy.analysis.subject import Section
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import listed_json, mean_of, to_json

LARGEST = 10
"""Drops that are listed in words."""


@dataclass(frozen=True)
class _Audited:
    """One run and its figures; ``star`` is (C,) the IoU on I*."""

    result: AuditResult
    influence: Influence
    star: Figures

    @property
    def star_drop(self) -> Figures:
        return self.influence.baseline_iou - self.star


def co_location_section(
    plan: AuditPlan, results: Sequence[AuditResult], classes: ClassTable, examples: Sequence[Example] = ()
) -> Section:
    """Figures and pictures of the audits; the first is the baseline, whose Top-3 and vulnerable half all the others take.

    ``content`` has, of the first run, "baseline_iou", "erased_iou", "drop", "same_pixels_drop", "star_iou" and "star_drop";
    "top3" by class name; "runs" with the same and the means of every run; all IoU are fractions, None where there is none.

    Args:
        plan: of the images that were audited.
        results: one a run, the baseline first; at least one.
        classes: of the data.
        examples: pictures of the strongest links (``examples.strongest_links``).
    """
    influences = [influence_of(result, plan.images_with) for result in results]
    top = top_influences(influences[0].drop)
    runs = [
        _Audited(result, one, star_iou(one.erased_iou, top)) for result, one in zip(results, influences, strict=True)
    ]
    vulnerable = most_vulnerable(runs[0].star_drop)
    # One scale for every run's matrix, so that they can be compared by eye.
    scale = largest_size([run.influence.drop for run in runs])
    pictures = {_picture_path(at): signed_picture(run.influence.drop, scale) for at, run in enumerate(runs)}
    pictures |= {_example_path(at): example.picture for at, example in enumerate(examples)}
    first = runs[0]
    content = {
        "classes": list(classes.names),
        "fill": plan.eraser.fill,
        "fill_rgb": list(plan.eraser.mean) if plan.eraser.fill == "dataset_mean" else None,
        "seed": plan.eraser.seed if plan.eraser.fill == "noise" else None,
        "images": plan.images,
        "images_with": list(plan.images_with),
        **_matrices(first),
        "top3": _top_names(top, classes),
        "star_iou": listed_json(first.star),
        "star_drop": listed_json(first.star_drop),
        "vulnerable": [classes.names[y] for y in vulnerable],
        "largest_drops": _largest_drops(first.influence.drop, classes),
        "scale": scale,
        "examples": [{**example.content, "picture": _example_path(at)} for at, example in enumerate(examples)],
        "left_out": _names(np.isnan(first.star), classes),
        "never_erased": _names(np.asarray(plan.images_with) == 0, classes),
        "runs": [_run(run, vulnerable, _picture_path(at)) for at, run in enumerate(runs)],
        "planned": plan.evaluations,
        "evaluations": first.result.evaluations,
        "example_evaluations": 2 * len(examples),
        "seconds": sum(run.result.seconds for run in runs),
    }
    return Section(content, pictures)


def _run(run: _Audited, vulnerable: Sequence[int], picture: str) -> dict[str, Any]:
    half = list(vulnerable)
    # Means on I and on I* are of the same classes: of those that have a figure on both.
    compared = ~np.isnan(run.star) & ~np.isnan(run.influence.baseline_iou)
    baseline = np.where(compared, run.influence.baseline_iou, np.nan)
    star = np.where(compared, run.star, np.nan)
    return {
        "name": run.result.name,
        **_matrices(run),
        "star_iou": listed_json(run.star),
        "star_drop": listed_json(run.star_drop),
        "miou": to_json(mean_of(baseline)),
        "miou_on_star": to_json(mean_of(star)),
        "miou_drop": to_json(mean_of(run.star_drop)),
        "vulnerable_miou": to_json(mean_of(baseline[half])),
        "miou_star": to_json(mean_of(star[half])),
        "vulnerable_drop": to_json(mean_of(run.star_drop[half])),
        "compared": int(compared.sum()),
        "evaluations": run.result.evaluations,
        "seconds": run.result.seconds,
        "picture": picture,
    }


def _matrices(run: _Audited) -> dict[str, Any]:
    influence = run.influence
    return {
        "baseline_iou": listed_json(influence.baseline_iou),
        "erased_iou": listed_json(influence.erased_iou),
        "drop": listed_json(influence.drop),
        "same_pixels_drop": listed_json(influence.same_pixels_drop),
    }


def _largest_drops(drop: Figures, classes: ClassTable) -> list[Mapping[str, Any]]:
    """The largest figures of the matrix that are above 0, largest first."""
    order = np.argsort(-drop, axis=None, kind="stable")[:LARGEST]
    places = [divmod(int(place), len(classes)) for place in order]
    return [
        {"class": classes.names[y], "erased": classes.names[x], "drop": float(drop[y, x])}
        for y, x in places
        if drop[y, x] > 0  # never true of NaN
    ]


def _top_names(top: Top, classes: ClassTable) -> dict[str, list[str]]:
    return {classes.names[y]: [classes.names[x] for x in xs] for y, xs in enumerate(top)}


def _names(which: Any, classes: ClassTable) -> list[str]:
    return [name for name, chosen in zip(classes.names, which, strict=True) if chosen]


def _picture_path(at: int) -> str:
    return f"co_location/drop-{at}.png"


def _example_path(at: int) -> str:
    return f"co_location/link-{at}.png"
