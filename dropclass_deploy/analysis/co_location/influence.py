"""Figures of an audit: which class leans on which, and how each fares without what it leans on.

Every matrix is (C, C) with the evaluated class Y in its row and the erased class X in its column, fractions, NaN where a
figure does not exist: on the diagonal (erased pixels count nowhere), in the column of a class that was erased nowhere,
and in the row of a class that occurs neither in the truth nor in the prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.co_location.audit import AuditResult
from dropclass_deploy.core.metrics import iou_of, mean_of

Figures = npt.NDArray[np.float64]
Top = tuple[tuple[int, ...], ...]
TOP = 3


@dataclass(frozen=True)
class Influence:
    """Of one run.

    Attributes:
        baseline_iou: (C,) on the images as they are (the paper's I).
        erased_iou: (C, C) IoU of Y after X was erased.
        drop: (C, C) ``baseline_iou`` of Y − ``erased_iou``, as the paper has it. Pixels of X no longer count afterwards,
            so that Y gains where it was wrongly predicted on X, whatever the network thinks of the rest.
        same_pixels_drop: (C, C) the same, with the pixels of X left out before as well: what the network alone lost.
    """

    baseline_iou: Figures
    erased_iou: Figures
    drop: Figures
    same_pixels_drop: Figures


def influence_of(result: AuditResult, images_with: Sequence[int]) -> Influence:
    """The matrices of one run.

    Args:
        result: its counts.
        images_with: (C,) images that have each class; a class in none was erased nowhere.
    """
    hits, truth, predicted = np.diag(result.base), result.base.sum(axis=1), result.base.sum(axis=0)
    baseline = iou_of(hits, truth, predicted)
    nowhere = np.eye(len(baseline), dtype=np.bool_) | (np.asarray(images_with) == 0)[None, :]
    # By (erased X, evaluated Y), turned at the end.
    after = iou_of(np.einsum("xyy->xy", result.erased), result.erased.sum(axis=2), result.erased.sum(axis=1)).T
    # Taking X's pixels out of the unerased count takes row X out of it: Y ≠ X loses false positives, nothing else.
    before = iou_of(hits, truth, predicted - result.base).T
    erased_iou = np.where(nowhere, np.nan, after)
    return Influence(
        baseline_iou=baseline,
        erased_iou=erased_iou,
        drop=baseline[:, None] - erased_iou,
        same_pixels_drop=before - erased_iou,
    )


def top_influences(drop: Figures, count: int = TOP) -> Top:
    """For each class Y the ids X with the largest drops, the largest first; equal drops go to the lower id.

    A class has fewer than ``count`` when fewer figures exist, and may have one whose drop is not above 0.
    """
    order = np.argsort(-drop, axis=1, kind="stable")  # NaN last
    known = ~np.isnan(drop)
    return tuple(tuple(int(x) for x in row[:count] if known[y, x]) for y, row in enumerate(order))


def star_iou(erased_iou: Figures, top: Top) -> Figures:
    """(C,) IoU on I*: the mean of each class's IoU after each of its ``top`` was erased; NaN without any."""
    return np.array([mean_of(erased_iou[y, list(xs)]) for y, xs in enumerate(top)])


def most_vulnerable(star_drop: Figures) -> tuple[int, ...]:
    """Ids of the half of the classes with the largest drop, largest first; those without a figure are in neither half."""
    known = int((~np.isnan(star_drop)).sum())
    return tuple(int(y) for y in np.argsort(-star_drop, kind="stable")[: known // 2])
