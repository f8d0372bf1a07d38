"""Pooled figures of an artifact on a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import Scores, confusion_matrix, scores
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.serving.segmenter import Segmenter


def evaluate_artifact(
    artifact_path: str | Path,
    dataset: Dataset,
    progress: Advance | None = None,
    *,
    runtime: str = "auto",
    threads: int | None = None,
) -> Scores:
    """``evaluate_segmenter`` of an artifact folder.

    Args:
        artifact_path: folder.
        dataset: images and labels.
        progress: told after each image.
        runtime: one of ``serving.runtimes.runtime_names()``; "auto" without threads takes a stored choice.
        threads: of one operator.

    Raises:
        ArtifactError: when the artifact cannot be used. DataError: as ``evaluate_segmenter``.
    """
    with Segmenter.load(artifact_path, runtime, threads) as segmenter:
        return evaluate_segmenter(segmenter, dataset, progress)


def evaluate_segmenter(segmenter: Segmenter, dataset: Dataset, progress: Advance | None = None) -> Scores:
    """Every figure of ``core.metrics.Scores``, pooled over the split at the labels' own resolution.

    Args:
        segmenter: its class table says which classes are rare.
        dataset: images and labels.
        progress: told after each image.

    Raises:
        DataError: when the classes differ in number, names or order, the value ranges differ, or the split is empty.
    """
    if len(dataset) == 0:
        raise DataError(f"the split {dataset.split!r} of {dataset.spec} is empty", expected="at least one image")
    classes, folder = segmenter.classes, str(segmenter.artifact.folder)
    classes.check_same(dataset.classes, folder, dataset.spec)
    segmenter.preprocess.check_value_range(dataset.value_range, folder, dataset.spec)
    total = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for index in range(len(dataset)):
        label = dataset.mask(index)
        mask = segmenter(dataset.image(index), size=(label.shape[0], label.shape[1])).mask
        total += confusion_matrix(label, mask, len(classes), dataset.classes.ignore_index)
        if progress is not None:
            progress(index + 1, len(dataset), dataset.key(index))
    return scores(total, classes.rare)
