"""The correlations of one or several runs as the part ``correlation`` of the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropclass_deploy.analysis.correlation.cosine import Correlation, Figures, off_diagonal_sums
from dropclass_deploy.analysis.matrix_picture import largest_size, signed_picture
from dropclass_deploy.analysis.subject import Section
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import listed_json, mean_of, to_json

CLOSEST = 10
"""Pairs that are listed in words."""


def correlation_section(
    correlations: Sequence[Correlation], classes: ClassTable, class_pixels: Sequence[int] | None
) -> Section:
    """Figures and pictures of the classifiers; the first run is the one that differences are taken from.

    Matrices in ``content`` are in id order; in the pictures and in "order" the most frequent class comes first.

    Args:
        correlations: one a run.
        classes: of the data.
        class_pixels: (C,) training pixels by which classes are ordered; None leaves them in id order.
    """
    order = _order(class_pixels, len(classes))
    total = sum(class_pixels) if class_pixels is not None else 0
    differences = [_difference(one, correlations[0]) for one in correlations]
    # The 1 of a class with itself would drown what lies between classes.
    scale = largest_size([_off_diagonal(one.cosine) for one in correlations if one.cosine is not None])
    content = {
        "classes": list(classes.names),
        "order": [classes.names[index] for index in order],
        "frequency": [pixels / total for pixels in class_pixels] if class_pixels is not None and total else None,
        "scale": scale,
        "runs": [
            _run(at, one, difference, classes)
            for at, (one, difference) in enumerate(zip(correlations, differences, strict=True))
        ],
    }
    painted = {_path(at): one.cosine for at, one in enumerate(correlations)}
    painted |= {_difference_path(at): difference for at, difference in enumerate(differences)}
    pictures = {
        path: signed_picture(_off_diagonal(matrix)[np.ix_(order, order)], scale)
        for path, matrix in painted.items()
        if matrix is not None
    }
    return Section(content, pictures)


def _run(at: int, one: Correlation, difference: Figures | None, classes: ClassTable) -> dict[str, Any]:
    signed, absolute = off_diagonal_sums(one.cosine) if one.cosine is not None else (None, None)
    return {
        "name": one.name,
        "classifier": one.classifier,
        "reason": one.reason or None,
        "cosine": None if one.cosine is None else listed_json(one.cosine),
        "signed": None if signed is None else listed_json(signed),
        "absolute": None if absolute is None else listed_json(absolute),
        "mean_signed": None if signed is None else to_json(mean_of(signed)),
        "mean_absolute": None if absolute is None else to_json(mean_of(absolute)),
        "closest": [] if one.cosine is None else _closest(one.cosine, classes),
        "difference": None if difference is None else listed_json(difference),
        "picture": None if one.cosine is None else _path(at),
        "difference_picture": None if difference is None else _difference_path(at),
    }


def _difference(one: Correlation, baseline: Correlation) -> Figures | None:
    """(C, C) this run's cosines − the baseline's; None for the baseline itself, or where one of the two has none."""
    if one is baseline or one.cosine is None or baseline.cosine is None:
        return None
    return one.cosine - baseline.cosine


def _path(at: int) -> str:
    return f"correlation/cosine-{at}.png"


def _difference_path(at: int) -> str:
    return f"correlation/difference-{at}.png"


def _closest(cosine: Figures, classes: ClassTable) -> list[dict[str, Any]]:
    """The pairs of the largest absolute cosine, largest first."""
    rows, columns = np.triu_indices(len(cosine), k=1)
    values = cosine[rows, columns]
    chosen = np.argsort(-np.abs(values), kind="stable")[:CLOSEST]
    return [
        {"classes": [classes.names[rows[pair]], classes.names[columns[pair]]], "cosine": float(values[pair])}
        for pair in chosen
        if not np.isnan(values[pair])
    ]


def _order(class_pixels: Sequence[int] | None, count: int) -> list[int]:
    """Class ids, most training pixels first."""
    if class_pixels is None:
        return list(range(count))
    return sorted(range(count), key=lambda index: -class_pixels[index])


def _off_diagonal(matrix: Figures) -> Figures:
    """A copy without figures on the diagonal."""
    copy = matrix.copy()
    np.fill_diagonal(copy, np.nan)
    return copy
