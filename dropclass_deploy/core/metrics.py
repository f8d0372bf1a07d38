"""Dataset-pooled segmentation metrics from an int64 confusion matrix.

Every figure is computed from one confusion matrix pooled over the whole split, never averaged over images. A class that
occurs neither in the truth nor in the prediction has IoU NaN and is left out of the means; how many were left out is
part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable
from dropclass_deploy.core.errors import DataError

Confusion = npt.NDArray[np.int64]


def confusion_matrix(
    truth: npt.NDArray[np.integer[Any]],
    prediction: npt.NDArray[np.integer[Any]],
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> Confusion:
    """Count pixels by (true class, predicted class).

    Args:
        truth: class ids, any shape; pixels equal to ``ignore_index`` are not counted.
        prediction: class ids, same shape.
        num_classes: C.
        ignore_index: the label value that counts nowhere.

    Returns:
        int64 (C, C), rows are the truth.

    Raises:
        DataError: when the shapes differ or an id lies outside [0, C).
    """
    if truth.shape != prediction.shape:
        raise DataError(
            f"the label has shape {truth.shape} and the prediction {prediction.shape}", expected="equal shapes"
        )
    valid = truth != ignore_index
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for what, values in (("label", rows), ("prediction", columns)):
        if values.size and not (values.min() >= 0 and values.max() < num_classes):
            raise DataError(
                f"a {what} holds class ids from {values.min()} to {values.max()}",
                expected=f"0 … {num_classes - 1}, or {ignore_index} for pixels to ignore",
            )
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """Pooled figures of one split; fractions in [0, 1], NaN where a figure does not exist."""

    iou: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    truth_pixels: npt.NDArray[np.int64]
    miou: float
    rare_miou: float
    pixel_accuracy: float
    worst_precision: float
    worst_precision_class: int | None
    left_out: tuple[int, ...]


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Element-wise division that gives NaN where the denominator is 0."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def iou_of(tp: npt.NDArray[Any], truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Intersection over union a class from pixel counts (``tp``: true positives); NaN where it occurs in neither."""
    return ratio(tp, truth + predicted - tp)


def mean_of(values: npt.NDArray[np.float64]) -> float:
    """Mean over the entries that are not NaN; NaN (without a warning) when there is none."""
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def scores(confusion: Confusion, rare: Sequence[int] = ()) -> Scores:
    """Every pooled figure of a confusion matrix.

    Args:
        confusion: int64 (C, C), rows are the truth.
        rare: ids of the rare classes; ``rare_miou`` is the mean IoU over them (mIoU† of arXiv 2111.00531).
    """
    true_positive = np.diag(confusion)
    truth, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = iou_of(true_positive, truth, predicted)
    precision = ratio(true_positive, predicted)
    known = ~np.isnan(precision)
    worst = int(np.nanargmin(precision)) if known.any() else None
    total = int(confusion.sum())
    return Scores(
        iou=iou,
        precision=precision,
        recall=ratio(true_positive, truth),
        truth_pixels=truth,
        miou=mean_of(iou),
        rare_miou=mean_of(iou[list(rare)]) if rare else float("nan"),
        pixel_accuracy=float(true_positive.sum() / total) if total else float("nan"),
        worst_precision=float(precision[worst]) if worst is not None else float("nan"),
        worst_precision_class=worst,
        left_out=tuple(int(index) for index in np.flatnonzero(np.isnan(iou))),
    )


def to_json(value: float) -> float | None:
    """A figure for JSON: NaN becomes null."""
    return None if np.isnan(value) else float(value)


def listed_json(values: npt.NDArray[np.float64]) -> list[Any]:
    """An array of figures as JSON, a list in a list for each axis; NaN becomes null."""
    return [to_json(value) if values.ndim == 1 else listed_json(value) for value in values]


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, without the sign, or a dash: 0.6123 → "61.2"."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def scores_json(result: Scores, classes: ClassTable) -> dict[str, Any]:
    """The figures of ``result`` as JSON values, classes by name in id order."""
    worst = result.worst_precision_class
    return {
        "miou": to_json(result.miou),
        "rare_miou": to_json(result.rare_miou),
        "pixel_accuracy": to_json(result.pixel_accuracy),
        "worst_class_precision": to_json(result.worst_precision),
        "worst_precision_class": None if worst is None else classes.names[worst],
        "left_out": [classes.names[index] for index in result.left_out],
        "classes": [
            {
                "name": name,
                "iou": to_json(float(result.iou[index])),
                "precision": to_json(float(result.precision[index])),
                "recall": to_json(float(result.recall[index])),
                "pixels": int(result.truth_pixels[index]),
                "rare": classes.is_rare(index),
            }
            for index, name in enumerate(classes.names)
        ],
    }
