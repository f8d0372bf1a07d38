"""Which class is taken for which, from the pooled confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.metrics import Confusion, ratio, scores, to_json

MOST = 10
"""Confusions that are listed."""
MOST_A_CLASS = 3


def confusion_content(confusion: Confusion, classes: ClassTable) -> dict[str, Any]:
    """The matrix, its rows as shares of the true class, and its largest entries off the diagonal.

    Args:
        confusion: int64 (C, C), pooled, rows are the truth.
        classes: names in id order; ``rare`` decides about the rare mIoU.

    Returns:
        ``matrix`` (pixels), ``normalised`` (rows sum to 1; None for a class without truth pixels), ``pairs`` (the most
        frequent confusions by pixels), ``classes`` (each with what it is mostly taken for).
    """
    figures = scores(confusion, classes.rare)
    shares = ratio(confusion, confusion.sum(axis=1, keepdims=True))
    errors = int(confusion.sum() - np.trace(confusion))
    return {
        "pixels": int(confusion.sum()),
        "errors": errors,
        "pixel_accuracy": to_json(figures.pixel_accuracy),
        "miou": to_json(figures.miou),
        "rare_miou": to_json(figures.rare_miou),
        "matrix": confusion.tolist(),
        "normalised": [[to_json(float(value)) for value in row] for row in shares],
        "pairs": [_pair(confusion, shares, pair, errors, classes) for pair in _largest(confusion, MOST)],
        "classes": [
            {
                "name": name,
                "pixels": int(figures.truth_pixels[index]),
                "iou": to_json(float(figures.iou[index])),
                "recall": to_json(float(figures.recall[index])),
                "precision": to_json(float(figures.precision[index])),
                "taken_for": _taken_for(confusion[index], index, classes),
            }
            for index, name in enumerate(classes.names)
        ],
    }


def _pair(
    confusion: Confusion, shares: npt.NDArray[np.float64], pair: tuple[int, int], errors: int, classes: ClassTable
) -> dict[str, Any]:
    truth, predicted = pair
    pixels = int(confusion[pair])
    return {
        "truth": classes.names[truth],
        "predicted": classes.names[predicted],
        "pixels": pixels,
        "share_of_class": to_json(float(shares[pair])),
        "share_of_errors": pixels / errors,
    }


def _largest(confusion: Confusion, most: int) -> list[tuple[int, int]]:
    """(truth, predicted) off the diagonal by pixels, those without any left out; of equals the lower ids first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    return [(int(at) // len(wrong), int(at) % len(wrong)) for at in order if wrong.flat[at]]


def _taken_for(row: Confusion, own: int, classes: ClassTable) -> list[dict[str, Any]]:
    others = [int(index) for index in np.argsort(-row, kind="stable") if index != own and row[index]]
    total = int(row.sum())
    return [
        {"name": classes.names[index], "pixels": int(row[index]), "share": int(row[index]) / total}
        for index in others[:MOST_A_CLASS]
    ]
