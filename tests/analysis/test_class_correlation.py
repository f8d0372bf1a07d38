"""Class correlation: cosines by hand and by a literal loop, row sums, order, and networks without a linear classifier."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from audit_cases import PLAIN, WideView, subject_of
from torch import nn

from dropclass_deploy.analysis.correlation import (
    Correlation,
    correlation_of,
    correlation_section,
    off_diagonal_sums,
    weight_cosines,
)
from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.models import build_model
from dropclass_deploy.training import DropClass, TorchSegmenter
from dropclass_deploy.training.dropclass import find_classifier, fold

NAMES = ("a", "b", "c")
# Vectors along x, y and the negative x: cosines 0, −1 and 0.
BY_HAND = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])[:, :, None, None]


def found(model: nn.Module, classes: int) -> Subject:
    names = tuple(f"class {index}" for index in range(classes))
    segment = TorchSegmenter(model.eval(), PLAIN)
    return Subject("run", segment, ClassTable(names=names), None, find_classifier(model))  # type: ignore[arg-type]


def test_cosines_and_row_sums_by_hand() -> None:
    cosine = weight_cosines(BY_HAND)
    assert cosine.tolist() == [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]
    signed, absolute = off_diagonal_sums(cosine)
    assert (signed.tolist(), absolute.tolist()) == ([-1, 0, -1], [1, 0, 1])


def test_all_weights_of_a_kernel_as_a_literal_loop() -> None:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    cosine = weight_cosines(weight)
    vectors = weight.double().reshape(5, -1).tolist()
    for y, x in np.ndindex(5, 5):
        dot = sum(p * q for p, q in zip(vectors[y], vectors[x], strict=True))
        lengths = [math.sqrt(sum(p * p for p in vectors[at])) for at in (y, x)]
        # Sums of 36 products in float64.
        assert cosine[y, x] == pytest.approx(dot / math.prod(lengths), abs=1e-12)
    signed, absolute = off_diagonal_sums(cosine)
    for y in range(5):
        others = [cosine[y, x] for x in range(5) if x != y]
        assert signed[y] == pytest.approx(sum(others), abs=1e-12)
        assert absolute[y] == pytest.approx(sum(map(abs, others)), abs=1e-12)


def test_weights_of_zero_point_nowhere() -> None:
    weight = BY_HAND.clone()
    weight[1] = 0
    cosine = weight_cosines(weight)
    np.testing.assert_equal(cosine, [[1, math.nan, -1], [math.nan] * 3, [-1, math.nan, 1]])
    np.testing.assert_equal(off_diagonal_sums(cosine), [[-1, math.nan, -1], [1, math.nan, 1]])


def test_the_classifier_of_a_network() -> None:
    model = WideView(4)
    one = correlation_of(found(model, 4))
    assert one.classifier == "classifier"
    np.testing.assert_array_equal(one.cosine, weight_cosines(model.classifier.weight))
    assert model.classifier.weight.requires_grad


def test_the_folded_head_has_the_same_classifier() -> None:
    model = build_model("lite0", num_classes=5, weights=None).eval()
    method = DropClass(model)
    folded = fold(method).eval()
    one = correlation_of(found(folded, 5))
    np.testing.assert_array_equal(one.cosine, correlation_of(found(model, 5)).cosine)


def test_without_a_classifier_it_says_why() -> None:
    one = correlation_of(subject_of(WideView(3), NAMES))
    assert (one.cosine, one.reason) == (None, "not looked for")
    content = correlation_section([one], ClassTable(names=NAMES), None).content
    assert content["runs"][0]["reason"] == "not looked for"
    assert content["runs"][0]["cosine"] is content["runs"][0]["signed"] is content["scale"] is None


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Softmax(dim=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images)


def test_a_head_that_is_not_linear_says_so() -> None:
    model = TwoLayers().eval()
    segment = TorchSegmenter(model, PLAIN)
    classifier = find_classifier(model, "head")
    one = correlation_of(Subject("run", segment, ClassTable(names=NAMES), None, classifier))  # type: ignore[arg-type]
    assert one.cosine is None
    assert one.reason == "the head 'head' is not one linear convolution: it has no weight vector a class"


def test_the_section_of_two_runs() -> None:
    first = Correlation("plain", weight_cosines(BY_HAND), classifier="head")
    second = Correlation("ours", weight_cosines(torch.eye(3)), classifier="head")
    section = correlation_section([first, second], ClassTable(names=NAMES), (10, 60, 30))
    content = json.loads(json.dumps(section.content, allow_nan=False))
    assert content["order"] == ["b", "c", "a"]
    assert content["frequency"] == [0.1, 0.6, 0.3]
    assert content["scale"] == 1.0
    plain, ours = content["runs"]
    assert plain["closest"][0] == {"classes": ["a", "c"], "cosine": -1.0}
    assert (plain["mean_signed"], plain["mean_absolute"]) == (pytest.approx(-2 / 3), pytest.approx(2 / 3))
    assert (plain["difference"], plain["difference_picture"]) == (None, None)
    assert ours["difference"] == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert set(section.pictures) == {plain["picture"], ours["picture"], ours["difference_picture"]}


def test_a_run_without_cosines_beside_one_with_them() -> None:
    first, second = Correlation("plain", None, "why"), Correlation("ours", weight_cosines(BY_HAND))
    section = correlation_section([first, second], ClassTable(names=NAMES), None)
    assert section.content["runs"][1]["difference"] is None
    assert list(section.pictures) == ["correlation/cosine-1.png"]
    assert section.content["order"] == list(NAMES)
