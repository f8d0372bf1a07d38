"""Pooled metrics against hand-worked matrices, a literal loop and torchmetrics."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import confusion_matrix, iou_of, mean_of, ratio, scores, scores_json, to_json

# 10 pixels: class 0 hit 5 times, missed twice (called 1); class 1 hit once, missed twice (called 0).
HAND = np.array([[5, 2], [2, 1]], dtype=np.int64)


def random_pair(seed: int, num_classes: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_classes, (3, 17, 23)).astype(np.uint8)
    truth[generator.random(truth.shape) < 0.1] = 255
    return truth, generator.integers(0, num_classes, truth.shape).astype(np.uint8)


def loop_confusion(truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], count: int) -> list[list[int]]:
    table = [[0] * count for _ in range(count)]
    for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != 255:
            table[true][predicted] += 1
    return table


def test_two_by_two_pixels_by_hand() -> None:
    truth = np.array([[0, 0], [1, 255]], dtype=np.uint8)
    prediction = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    assert confusion_matrix(truth, prediction, 2).tolist() == [[1, 1], [0, 1]]


def test_rows_are_the_truth() -> None:
    assert confusion_matrix(np.array([1]), np.array([0]), 2).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(("seed", "num_classes"), [(0, 2), (1, 5), (2, 19), (3, 255)])
def test_confusion_equals_torchmetrics(seed: int, num_classes: int) -> None:
    truth, prediction = random_pair(seed, num_classes)
    oracle = MulticlassConfusionMatrix(num_classes, ignore_index=255)
    oracle.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64)))
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, num_classes), oracle.compute().numpy())


@pytest.mark.parametrize("seed", range(3))
def test_confusion_equals_a_literal_loop(seed: int) -> None:
    truth, prediction = random_pair(seed, 7)
    assert confusion_matrix(truth, prediction, 7).tolist() == loop_confusion(truth, prediction, 7)


def test_confusion_adds_up_over_images() -> None:
    truth, prediction = random_pair(4, 6)
    parts = sum(confusion_matrix(t, p, 6) for t, p in zip(truth, prediction, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(truth, prediction, 6))


def test_confusion_is_int64() -> None:
    assert confusion_matrix(np.array([0], dtype=np.uint8), np.array([0], dtype=np.uint8), 2).dtype == np.int64


def test_another_ignore_value_is_honoured() -> None:
    truth = np.array([-1, 0, 1], dtype=np.int16)
    assert confusion_matrix(truth, np.array([0, 0, 0]), 2, ignore_index=-1).tolist() == [[1, 0], [1, 0]]


def test_what_stands_under_ignored_pixels_does_not_matter() -> None:
    truth = np.array([255, 0], dtype=np.uint8)
    assert confusion_matrix(truth, np.array([200, 0], dtype=np.uint8), 2).tolist() == [[1, 0], [0, 0]]


def test_nothing_counted_gives_zeros() -> None:
    empty = np.full((2, 2), 255, dtype=np.uint8)
    assert confusion_matrix(empty, np.zeros_like(empty), 3).tolist() == [[0] * 3] * 3


def test_shapes_must_agree() -> None:
    with pytest.raises(DataError, match=r"label has shape \(2, 2\) and the prediction \(2, 3\); expected equal shapes"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_a_label_outside_the_table_is_refused() -> None:
    with pytest.raises(DataError, match="a label holds class ids from 0 to 200; expected 0 … 1, or 255"):
        confusion_matrix(np.array([0, 200]), np.array([0, 0]), 2)


def test_a_negative_label_is_refused() -> None:
    with pytest.raises(DataError, match="a label holds class ids from -1 to 0"):
        confusion_matrix(np.array([-1, 0]), np.array([0, 0]), 2)


def test_a_prediction_outside_the_table_is_refused() -> None:
    with pytest.raises(DataError, match="a prediction holds class ids from 0 to 2"):
        confusion_matrix(np.array([0, 1]), np.array([0, 2]), 2)


def test_scores_by_hand() -> None:
    result = scores(HAND, rare=(1,))
    # IoU 0: 5 / (7 + 7 − 5) = 5/9; IoU 1: 1 / (3 + 3 − 1) = 1/5. Exact in float64: one division each.
    assert result.iou.tolist() == [5 / 9, 1 / 5]
    assert result.precision.tolist() == [5 / 7, 1 / 3]
    assert result.recall.tolist() == [5 / 7, 1 / 3]
    assert result.truth_pixels.tolist() == [7, 3]
    assert result.miou == (5 / 9 + 1 / 5) / 2
    assert result.rare_miou == 1 / 5
    assert result.pixel_accuracy == 6 / 10
    assert (result.worst_precision, result.worst_precision_class) == (1 / 3, 1)
    assert result.left_out == ()


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_a_literal_loop_over_pixels(seed: int) -> None:
    truth, prediction = random_pair(seed, 5)
    result = scores(confusion_matrix(truth, prediction, 5), rare=(1, 3))
    kept = truth != 255
    ious = []
    for index in range(5):
        true, predicted = truth[kept] == index, prediction[kept] == index
        ious.append((true & predicted).sum() / (true | predicted).sum())
    # The same integers and one division: any difference would be a bug, so no tolerance but that of summing five terms.
    assert result.iou.tolist() == ious
    assert result.miou == pytest.approx(sum(ious) / 5, abs=1e-15)
    assert result.rare_miou == pytest.approx((ious[1] + ious[3]) / 2, abs=1e-15)
    assert result.pixel_accuracy == (truth[kept] == prediction[kept]).mean()


def test_a_class_in_neither_truth_nor_prediction_is_left_out() -> None:
    result = scores(np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]], dtype=np.int64), rare=(1, 2))
    assert math.isnan(result.iou[1])
    assert result.left_out == (1,)
    assert result.miou == (3 / 4 + 4 / 5) / 2
    assert result.rare_miou == 4 / 5


def test_a_class_only_predicted_has_iou_zero_and_counts() -> None:
    result = scores(np.array([[3, 1], [0, 0]], dtype=np.int64))
    assert result.iou.tolist() == [3 / 4, 0.0]
    assert math.isnan(result.recall[1])
    assert result.left_out == ()


def test_a_class_never_predicted_has_no_precision() -> None:
    result = scores(np.array([[3, 0], [2, 0]], dtype=np.int64))
    assert math.isnan(result.precision[1])
    assert result.worst_precision_class == 0
    assert result.iou[1] == 0.0


def test_equal_worst_precisions_go_to_the_lower_id() -> None:
    assert scores(np.array([[1, 1], [1, 1]], dtype=np.int64)).worst_precision_class == 0


def test_an_empty_matrix_gives_nan_without_a_warning() -> None:
    result = scores(np.zeros((3, 3), dtype=np.int64), rare=(2,))
    assert [math.isnan(value) for value in (result.miou, result.rare_miou, result.pixel_accuracy)] == [True] * 3
    assert result.worst_precision_class is None
    assert result.left_out == (0, 1, 2)


def test_without_rare_classes_there_is_no_rare_miou() -> None:
    assert math.isnan(scores(HAND).rare_miou)


def test_a_whole_data_set_of_pixels_does_not_overflow() -> None:
    big = np.array([[2**40, 2**39], [0, 2**40]], dtype=np.int64)
    assert scores(big).iou.tolist() == [2 / 3, 2 / 3]


def test_ratio_is_nan_exactly_where_the_denominator_is_zero() -> None:
    np.testing.assert_array_equal(ratio(np.array([1, 0, 2]), np.array([2, 0, 0])), [0.5, np.nan, np.nan])


def test_iou_of_broadcasts_over_images() -> None:
    counts = np.array([[1, 0], [2, 0]])
    np.testing.assert_array_equal(iou_of(counts, counts + 1, counts + 1), [[1 / 3, 0.0], [2 / 4, 0.0]])


def test_mean_of_ignores_nan() -> None:
    assert mean_of(np.array([np.nan, 1.0, 3.0])) == 2.0


@pytest.mark.parametrize(("value", "expected"), [(float("nan"), None), (0.25, 0.25), (np.float64(1.0), 1.0)])
def test_to_json_writes_nan_as_null(value: float, expected: float | None) -> None:
    assert to_json(value) == expected


def test_scores_json_is_strict_json_in_id_order() -> None:
    classes = ClassTable(names=("road", "sky", "pole"), rare=(2,))
    confusion = np.array([[3, 0, 1], [0, 0, 0], [0, 0, 4]], dtype=np.int64)
    written = json.loads(json.dumps(scores_json(scores(confusion, classes.rare), classes), allow_nan=False))
    assert [entry["name"] for entry in written["classes"]] == ["road", "sky", "pole"]
    assert [entry["rare"] for entry in written["classes"]] == [False, False, True]
    assert written["classes"][1] == {
        "name": "sky", "iou": None, "precision": None, "recall": None, "pixels": 0, "rare": False
    }  # fmt: skip
    assert written["left_out"] == ["sky"]
    assert written["worst_precision_class"] == "pole"
    assert written["worst_class_precision"] == written["rare_miou"] == 4 / 5
