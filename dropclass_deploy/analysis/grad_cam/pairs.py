"""Which classes are explained against which: those that the baseline confuses, or those that were named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.metrics import ratio


@dataclass(frozen=True)
class Pair:
    """Pixels of class ``truth`` that were taken for class ``confused``."""

    truth: int
    confused: int


def confusion_rates(confusions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(C, C) of each image's confusion matrix (N, C, C): share of the row's true pixels in the split; NaN without any."""
    pooled = confusions.sum(axis=0)
    return ratio(pooled, pooled.sum(axis=1, keepdims=True))


def confused_pairs(confusions: npt.NDArray[np.int64], classes: ClassTable, limit: int) -> tuple[Pair, ...]:
    """Each class with the class that most of its lost pixels go to; rare classes first, then by share of the class's pixels.

    One pair a class: else a single bad class would fill the list.

    Args:
        confusions: int64 (N, C, C), rows are the truth.
        classes: with the rare ones.
        limit: at most so many.
    """
    rates = np.nan_to_num(confusion_rates(confusions))
    np.fill_diagonal(rates, 0)
    worst = rates.argmax(axis=1)
    order = sorted(range(len(classes)), key=lambda one: (not classes.is_rare(one), -rates[one, worst[one]], one))
    return tuple(Pair(one, int(worst[one])) for one in order if rates[one, worst[one]] > 0)[:limit]


def named_pairs(names: Sequence[tuple[str, str]], classes: ClassTable) -> tuple[Pair, ...]:
    """Pairs given as (true class, confusable class).

    Raises:
        DataError: for a name that is no class, or a class beside itself.
    """
    for truth, confused in names:
        for name in (truth, confused):
            if name not in classes.names:
                raise DataError(f"there is no class {name!r}", expected=f"one of {', '.join(classes.names)}")
        if truth == confused:
            raise DataError(f"the pair is {truth!r} twice", expected="two classes")
    return tuple(Pair(classes.names.index(truth), classes.names.index(confused)) for truth, confused in names)


def is_mistaken(pair: Pair, confusions: npt.NDArray[np.int64]) -> bool:
    """Whether any pixel of the one class was taken for the other."""
    return bool(confusions[:, pair.truth, pair.confused].any())


def images_of(pair: Pair, confusions: npt.NDArray[np.int64], limit: int) -> list[int]:
    """Places in the pass of the images with most confused pixels; where there are none, with most of the true class."""
    counts = confusions[:, pair.truth, pair.confused]
    if not is_mistaken(pair, confusions):
        counts = confusions[:, pair.truth].sum(axis=1)
    order = np.argsort(-counts, kind="stable")
    return [int(place) for place in order[:limit] if counts[place] > 0]
