"""The audit of one run: what happens to every class when another one is taken out of the pictures.

Follows the description of the set I* in DropClass (arXiv 2111.00531, Table 4). A split is copied once a class X; in the copy
the pixels of X are filled with something else. Pixels that were erased count nowhere, whatever is predicted there. Choices
made here:

* Truth says which pixels are erased, "ignore" stays as it is, and the border of a mask is taken at its word: a rim of the
  class that lies beyond it stays in the picture.
* The fill is an option (``fills``); the mean colour of the data is the default, for noise harms every class near it.
* A class is judged on all images, also those without X: they are what they were, and dilute a drop honestly.
* An image with one class alone is not predicted again without it: nothing would be left to count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.co_location.plan import AuditPlan, classes_in, to_erase
from dropclass_deploy.analysis.subject import Seen, Subject
from dropclass_deploy.core.metrics import Confusion, confusion_matrix

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AuditResult:
    """What one run's audit counted.

    Attributes:
        name: of the run.
        base: int64 (C, C), rows are the truth: the images as they are.
        erased: int64 (C, C, C): by erased class, then as ``base``; pixels of the erased class are not in it. An image
            without that class is in it as it is.
        clearest: int64 (C, C): by erased class X and evaluated class Y, the image in which Y lost the most pixels that
            were found before; −1 where none was lost.
        evaluations: predictions made, the unerased ones among them.
        seconds: spent on erasing, predicting and counting, the unerased pass left out.
    """

    name: str
    base: Confusion
    erased: Counts
    clearest: Counts
    evaluations: int
    seconds: float


class CoLocationAudit:
    """An observer of ``sweep``: of every image it erases each class in turn and predicts again.

    Images and classes may come in any order; the result is the same.

    Args:
        subject: the run.
        plan: of the images that will be seen.
        note: hears, after the first image with something to erase, how long the rest will take.
    """

    def __init__(self, subject: Subject, plan: AuditPlan, note: Callable[[str], None] | None = None) -> None:
        self._subject, self._plan, self._note = subject, plan, note
        count = len(subject.classes)
        self._base = np.zeros((count, count), dtype=np.int64)
        # What erasing changed: images without the class change nothing and cost nothing.
        self._change = np.zeros((count, count, count), dtype=np.int64)
        self._lost, self._clearest = np.zeros((count, count), dtype=np.int64), np.full((count, count), -1)
        self._images, self._erasures, self._seconds = 0, 0, 0.0

    def observe(self, seen: Seen) -> None:
        """Predict an image once more for each class in it."""
        began = perf_counter()
        base = self._count(seen.truth, seen.mask)
        self._base += base
        self._images += 1
        present = classes_in(seen.truth, self._subject.classes.ignore_index)
        needed = to_erase(present)
        for erased_class in present:
            self._change[erased_class] -= base
        for erased_class in needed:
            after = self._without(seen, erased_class)
            self._change[erased_class] += after
            self._keep_clearest(seen.index, erased_class, np.diag(base) - np.diag(after))
        first = not self._erasures and bool(needed)
        self._erasures += len(needed)
        self._seconds += perf_counter() - began
        if first and self._note is not None:
            self._note(self._outlook())

    def result(self) -> AuditResult:
        """What was counted so far."""
        return AuditResult(
            name=self._subject.name,
            base=self._base.copy(),
            erased=self._base + self._change,
            clearest=self._clearest.copy(),
            evaluations=self._images + self._erasures,
            seconds=self._seconds,
        )

    def _without(self, seen: Seen, erased_class: int) -> Confusion:
        erased = seen.truth == erased_class
        mask = self._subject.segment(self._plan.eraser(seen.image, erased, seen.index, erased_class))
        return self._count(np.where(erased, self._subject.classes.ignore_index, seen.truth), mask)

    def _keep_clearest(self, index: int, erased_class: int, lost: Counts) -> None:
        """``lost``: (C,) pixels of each class that were found before and are not any more; the erased class has no say."""
        lost[erased_class] = 0
        most, where = self._lost[erased_class], self._clearest[erased_class]
        # Of equal ones the first of the split, whatever the order they come in.
        clearer = (lost > most) | ((lost == most) & (index < where))
        most[clearer], where[clearer] = lost[clearer], index

    def _count(self, truth: npt.NDArray[np.integer], mask: npt.NDArray[np.uint8]) -> Confusion:
        return confusion_matrix(truth, mask, len(self._subject.classes), self._subject.classes.ignore_index)

    def _outlook(self) -> str:
        each = self._seconds / self._erasures
        left = max(0, self._plan.erasures - self._erasures)
        return (
            f"co-location audit of {self._subject.name}: {left:,} more images with a class erased, about "
            f"{duration(left * each)} ({each:.3g} s each on the first image)"
        )


def duration(seconds: float) -> str:
    """Two figures at most: "42 s", "7 min", "1 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
