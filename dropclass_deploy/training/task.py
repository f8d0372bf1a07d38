"""The data of a run, looked at before the first step: splits, class table, rare classes, class weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError, RecipeError
from dropclass_deploy.core.progress import Reporter
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.doctor import examine
from dropclass_deploy.data.images import image_size
from dropclass_deploy.data.registry import open_dataset, survey
from dropclass_deploy.data.statistics import ClassStatistics, count_classes, enet_weights, median_frequency_weights
from dropclass_deploy.training.recipe import Recipe


def _check_one_size(dataset: Dataset) -> None:
    """Whole images make a batch only when all have one size; better said now than at the first batch that mixes two."""
    sizes: dict[tuple[int, int], str] = {}
    for index in range(len(dataset)):
        path = dataset.image_path(index)
        height, width = dataset.image(index).shape[:2] if path is None else image_size(path)
        sizes.setdefault((height, width), dataset.key(index))
        if len(sizes) > 1:
            (first, one), (second, other) = sizes.items()
            raise DataError(
                f"the images differ in size: {one} is {first[0]}×{first[1]} and {other} {second[0]}×{second[1]}",
                expected="one size",
                remedy="set train.crop: [height, width], or preprocess.size",
            )


def _statistics(recipe: Recipe, train: Dataset, reporter: Reporter) -> ClassStatistics:
    layout = survey(recipe.data)
    if layout is None:
        with reporter.phase("counting training pixels") as advance:
            return count_classes(train, advance)
    report = examine(layout, (recipe.splits.train, recipe.splits.val), reporter)
    report.raise_for_errors()
    for finding in report.warnings:
        reporter.note(f"warning: {finding}")
    return report.statistics[recipe.splits.train]


def _check_resampled(classes: ClassTable, name: str) -> None:
    if name not in classes.names:
        raise RecipeError(
            f"method.options.resample.class: there is no class {name!r}",
            expected=f"one of {', '.join(classes.names)}",
        )


@dataclass(frozen=True)
class Task:
    """What a run learns.

    Attributes:
        train: the training split.
        val: the validation split.
        classes: with the rare classes, found from the training pixels.
        statistics: of the training split.
        class_weight: float64 (C,), or None for unweighted cross-entropy.
    """

    train: Dataset
    val: Dataset
    classes: ClassTable
    statistics: ClassStatistics
    class_weight: npt.NDArray[np.float64] | None


def open_splits(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """The training and the validation split.

    Raises:
        DataError: when one of them cannot be opened.
    """
    return open_dataset(recipe.data, recipe.splits.train), open_dataset(recipe.data, recipe.splits.val)


def study(recipe: Recipe, train: Dataset, val: Dataset, reporter: Reporter) -> Task:
    """Let the mask doctor read every file of both splits (once: unchanged files are known the second time).

    Raises:
        DataError: for data that cannot be used.
        RecipeError: when images of a class are to be repeated that the data do not have.
    """
    options = recipe.method.options
    if options.resample is not None:
        _check_resampled(train.classes, options.resample.of)
    statistics = _statistics(recipe, train, reporter)
    classes = train.classes.with_rare_from(statistics.pixels)
    absent = [classes.names[index] for index in np.flatnonzero(statistics.pixels == 0)]
    if recipe.train.crop is None and recipe.preprocess.size is None:
        _check_one_size(train)
    if absent:
        reporter.note(f"no training pixel of: {', '.join(absent)}")
    reporter.note(f"rare classes: {', '.join(classes.names[index] for index in classes.rare)}")
    return Task(
        train=train,
        val=val,
        classes=classes,
        statistics=statistics,
        class_weight=_class_weight(recipe, statistics),
    )


def _class_weight(recipe: Recipe, statistics: ClassStatistics) -> npt.NDArray[np.float64] | None:
    """What the recipe asks for, float64 (C,); None for classes that count alike."""
    options = recipe.method.options
    if options.enet_weights is not None:
        return enet_weights(statistics, options.enet_weights.c)
    if options.median_frequency is not None:
        return softened(median_frequency_weights(statistics), options.median_frequency.power)
    return None


def softened(weights: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """``weights`` ** ``power``, (C,); a weight of 0 (a class that does not occur) stays 0 whatever the power."""
    return np.where(weights > 0, weights**power, 0.0)
