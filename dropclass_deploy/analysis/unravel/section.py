"""Unravelling objects of rare classes, the same for every run: pictures, where the points lie, what they are worth.

``content``, the value of ``unravel`` in ``analysis.json``::

    {"max_points": int, "patch": pixels, "draws": int, "seed": int,
     "min_pixels": int, "min_recall": share,    # of an object, and what of it the first run must find: that flatters it
     "compared": int,                           # objects that every run has
     "runs": [{"name": str, "problem": str | None, "arrived": share, "in_object": share, "in_class": share, "area": share,
               "iou": iou, "fall": iou, "fall_outside": iou,
               "random_fall": iou, "random_spread": iou, "random_fall_outside": iou}],  # means over those objects
     "objects": [{"class": id, "image": key, "pixels": int, "area": share, "picture": path, "patches": int, "patch": pixels,
                  "runs": [{"name": str, "recall": share, "picture": path, "pixels": int, "followed": int, "arrived": int,
                            "ended": {operator: int}, "in_object": share, "in_class": share, "iou": iou, "patches": int,
                            "fall": iou, "fall_outside": iou,
                            "random_falls": [iou, …], "random_falls_outside": [iou, …]}]}]}

A run's ``arrived`` is the part of the followed pixels whose way comes to an image point, not to a bias. ``in_object`` and
``in_class`` are shares of the points' weight; ``area`` is the object's share of the image, what points strewn evenly would
give. A fall is before minus after, in the object's image, of the object's class; "outside" leaves the blanked pixels out of
both. ``random_spread`` is the standard deviation of the draws' means. A run that predicts nothing of its class in an object
has None there; so has one with a ``problem`` everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dropclass_deploy.analysis.panels import dotted, outlined, photo_png, shrunk
from dropclass_deploy.analysis.subject import Section, Subject
from dropclass_deploy.analysis.unravel.blanking import (
    Flags,
    class_iou,
    covered,
    fall_of,
    fixated_patches,
    most_patches,
    patch_size,
    random_patches,
)
from dropclass_deploy.analysis.unravel.fixations import MAX_POINTS, Fixations, fixations_on_image
from dropclass_deploy.analysis.unravel.objects import FoundObject, find_objects
from dropclass_deploy.analysis.unravel.summary import run_summaries
from dropclass_deploy.core.errors import ModelError, first_line
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels

_DOTS = 200
_CYAN = (90, 220, 255)


@dataclass(frozen=True)
class Options:
    """How objects are chosen and blanked.

    Attributes:
        objects: at most, over all classes.
        per_class: at most.
        min_pixels: of an object.
        min_recall: share of an object's pixels that the baseline gives its class.
        max_points: pixels of an object that are followed at most.
        patch: side of a blanked patch, in pixels.
        patches: of them at most; fewer where an image has no room for so many random ones, or fixations for so few.
        draws: of random patches, each the same for every run with as many patches.
        seed: of the draws.
    """

    objects: int = 10
    per_class: int = 3
    min_pixels: int = 25
    min_recall: float = 0.5
    max_points: int = MAX_POINTS
    patch: int = 9
    patches: int = 8
    draws: int = 5
    seed: int = 0


def unravel_section(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    confusions: Sequence[Any],
    options: Options | None = None,
    *,
    advance: Advance | None = None,
) -> Section:
    """Unravel objects that the first subject finds, with every subject.

    Args:
        subjects: the first is the baseline.
        dataset: the split.
        indices: of the images that ``confusions`` are of.
        confusions: int64 (N, C, C) a subject, rows are the truth.
        options: see there.
        advance: told after each object of each run.
    """
    options = options or Options()
    pictures: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    objects = _objects(subjects[0], dataset, indices, confusions[0], options, problems)
    entries = []
    for number, one in enumerate(objects):
        case = _Case(one, dataset.image(one.index), dataset.mask(one.index), options)
        entry = case.entry(dataset.key(one.index), f"unravel/object{number}", pictures)
        for place, subject in enumerate(subjects):
            stem = f"unravel/object{number}-run{place}.png"
            entry["runs"].append(case.run_entry(subject, stem, pictures, problems))
            if advance is not None:
                advance(number * len(subjects) + place + 1, len(objects) * len(subjects))
        entries.append(entry)
    _leave_out(problems, entries, pictures)
    summary = run_summaries([one.name for one in subjects], entries, problems)
    told = ("max_points", "patch", "draws", "seed", "min_pixels", "min_recall")
    chosen = {name: getattr(options, name) for name in told}
    return Section({**chosen, **summary, "objects": entries}, pictures)


def _objects(
    subject: Subject,
    dataset: Dataset,
    indices: Sequence[int],
    confusions: Any,
    options: Options,
    problems: dict[str, str],
) -> list[FoundObject]:
    """What is unravelled; nothing, and a problem, where the baseline breaks down on the way."""
    try:
        return find_objects(
            subject,
            dataset,
            indices,
            confusions,
            limit=options.objects,
            per_class=options.per_class,
            min_pixels=options.min_pixels,
            min_recall=options.min_recall,
        )
    except (RuntimeError, MemoryError) as error:
        problems[subject.name] = first_line(error)
        return []


def _leave_out(problems: dict[str, str], entries: list[dict[str, Any]], pictures: dict[str, bytes]) -> None:
    """Nothing of a run with a problem, also of the objects that it came to before."""
    for run in (run for entry in entries for run in entry["runs"] if run["name"] in problems):
        pictures.pop(run["picture"], None)
        run |= _NOT_UNRAVELLED


class _Case:
    """One object in its image."""

    def __init__(self, one: FoundObject, image: Pixels, truth: Pixels, options: Options) -> None:
        self.one, self.image, self.truth, self.options = one, image, truth, options
        self.height, self.width = truth.shape
        self.size = patch_size(options.patch, *truth.shape)
        self.room = most_patches(options.patches, self.size, *truth.shape)

    def entry(self, key: str, stem: str, pictures: dict[str, bytes]) -> dict[str, Any]:
        """What is the same for every run."""
        pictures[f"{stem}.png"] = photo_png(outlined(shrunk(self.image), self.one.region))
        return {
            "class": self.one.class_id,
            "image": key,
            "pixels": int(self.one.region.sum()),
            "area": float(self.one.region.mean()),
            "picture": f"{stem}.png",
            "patches": self.room,
            "patch": self.size,
            "runs": [],
        }

    def run_entry(
        self, subject: Subject, path: str, pictures: dict[str, bytes], problems: dict[str, str]
    ) -> dict[str, Any]:
        """One run's figures; where the network breaks down, out of memory for one, that becomes the run's problem."""
        entry: dict[str, Any] = {"name": subject.name, "recall": None, "iou": None, **_NOT_UNRAVELLED}
        try:
            mask = subject.segment(self.image)
            entry |= self._found(subject, mask)
            if subject.name not in problems and entry["recall"] > 0:
                entry |= self._unravelled(subject, mask, path, pictures)
        except ModelError as error:
            problems.setdefault(subject.name, str(error))
        except (RuntimeError, MemoryError) as error:
            problems.setdefault(subject.name, first_line(error))
        return entry

    def _found(self, subject: Subject, mask: Pixels) -> dict[str, Any]:
        one, counted = self.one, self.truth != subject.classes.ignore_index
        return {
            "recall": float((mask == one.class_id)[one.region].mean()),
            "iou": class_iou(mask, self.truth, one.class_id, counted),
        }

    def _unravelled(self, subject: Subject, mask: Pixels, path: str, pictures: dict[str, bytes]) -> dict[str, Any]:
        one = self.one
        start = (mask == one.class_id) & one.region
        found = fixations_on_image(subject, self.image, start, one.class_id, self.options.max_points)
        entry = {"pixels": found.pixels, "followed": found.followed, "arrived": found.arrived, "ended": found.ended}
        if not found.arrived:
            return entry
        weights = found.map(self.height, self.width)
        corners = fixated_patches(weights, self.size, self.room)
        blank = covered(corners, self.size, self.height, self.width)
        falls = self._falls(subject, mask, blank, len(corners))
        pictures[path] = photo_png(self._drawn(found, blank))
        return entry | {
            "picture": path,
            "in_object": float(weights[one.region].sum() / found.arrived),
            "in_class": float(weights[self.truth == one.class_id].sum() / found.arrived),
            "patches": len(corners),
            **falls,
        }

    def _falls(self, subject: Subject, mask: Pixels, blank: Flags, count: int) -> dict[str, Any]:
        one, seen = self.one, (subject, self.image, self.truth, self.one.class_id, mask)
        own = fall_of(*seen, blank)
        generator = np.random.default_rng([self.options.seed, one.index, one.class_id])
        draws = [
            random_patches(self.height, self.width, self.size, count, generator) for _ in range(self.options.draws)
        ]
        falls = [fall_of(*seen, covered(corners, self.size, self.height, self.width)) for corners in draws]
        return {
            "fall": own.everywhere,
            "fall_outside": own.outside,
            "random_falls": [fall.everywhere for fall in falls],
            "random_falls_outside": [fall.outside for fall in falls],
        }

    def _drawn(self, found: Fixations, blank: Flags) -> Pixels:
        """The heaviest points, the object in white, the patches in cyan, the heaviest point drawn last."""
        order = np.argsort(found.weights, kind="stable")[-_DOTS:]
        weights = found.weights[order].astype(np.float64)
        panel = outlined(outlined(shrunk(self.image), blank, _CYAN), self.one.region)
        return dotted(panel, found.places[order], (self.height, self.width), weights / weights.max())


_NOT_UNRAVELLED: dict[str, Any] = {
    "picture": None,
    "pixels": 0,
    "followed": 0,
    "arrived": 0,
    "ended": {},
    "in_object": None,
    "in_class": None,
    "patches": 0,
    "fall": None,
    "fall_outside": None,
    "random_falls": [],
    "random_falls_outside": [],
}
