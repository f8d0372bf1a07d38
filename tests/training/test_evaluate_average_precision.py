"""Average precision of a network over a split: pixels of all images together, at the labels' resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import nn

from dropclass_deploy.core.average_precision import PrecisionHistogram
from dropclass_deploy.core.preprocess import Preprocess
from dropclass_deploy.data import open_dataset
from dropclass_deploy.training.evaluate import evaluate_network


class Coarse(nn.Module):
    """A random 3×3 convolution at half the resolution."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.classifier = nn.Conv2d(3, num_classes, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(images)


def test_equal_to_scikit_learn_over_all_pixels_of_the_split() -> None:
    dataset, preprocess = open_dataset("synthetic:size=32x48,train=1,val=3", "val"), Preprocess()
    count = len(dataset.classes)
    model = Coarse(count).eval()
    ranking = PrecisionHistogram(count, dataset.classes.ignore_index)
    result = evaluate_network(model, dataset, preprocess, ranking=ranking)
    scores, labels = [], []
    for index in range(len(dataset)):
        image = dataset.image(index)
        with torch.no_grad():
            logits = model(torch.from_numpy(preprocess.normalise(image)))
        logits = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        scores.append(logits.softmax(dim=1)[0].flatten(1).numpy())
        labels.append(dataset.mask(index).ravel())
    probabilities, truth = np.concatenate(scores, axis=1), np.concatenate(labels)
    valid = truth != dataset.classes.ignore_index
    lower, upper = ranking.bounds()
    for index in np.flatnonzero(result.truth_pixels):
        expected = average_precision_score(truth[valid] == index, probabilities[index, valid])
        # The bounds hold the bins' error; 1e-6 the softmax of other threads and batches.
        assert lower[index] - 1e-6 <= expected <= upper[index] + 1e-6
        assert ranking.average_precision()[index] == pytest.approx(expected, abs=0.003)  # said in the module
    assert np.isnan(ranking.average_precision()[result.truth_pixels == 0]).all()


def test_the_other_figures_are_the_same_with_and_without() -> None:
    dataset = open_dataset("synthetic:size=32x48,train=1,val=2", "val")
    count = len(dataset.classes)
    without = evaluate_network(Coarse(count), dataset, Preprocess())
    ranked = evaluate_network(Coarse(count), dataset, Preprocess(), ranking=PrecisionHistogram(count))
    np.testing.assert_array_equal(without.iou, ranked.iou)
