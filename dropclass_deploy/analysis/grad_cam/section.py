"""Grad-CAM of confused classes, for every run, on the same images: pictures, and how much of a map lies on what it is of.

``content``, the value of ``grad_cam`` in ``analysis.json``::

    {"layer": str | None,                 # None: the input of the classifier
     "runs": [{"name": str, "closed_form": bool, "problem": str | None}],
     "pairs": [{"truth": id, "confused": id,
                "mistaken": bool,         # by the first run; if not, the images are those with most of the true class
                "images": int,            # measured
                "used": {"truth_map": {"on_truth": int, "on_confused": int}, "confused_map": {…}},   # images of each mean
                "even": {"truth_map": {"on_truth": share, "on_confused": share},
                         "confused_map": {…}},     # what a map without any preference would give in those images
                "runs": [{"name": str, "rate": share,            # true pixels of the split taken for the other
                          "truth_map": {"on_truth": share, "on_confused": share},
                          "confused_map": {"on_truth": share, "on_confused": share}}]}],
     "maps": [{"pair": index, "image": key, "confused_pixels": int, "picture": path,
               "runs": [{"name": str, "truth_map": {"picture": path, "on_truth": share, "on_confused": share},
                         "confused_map": {…}}]}]}

A share is of the map's sum over labelled pixels, None where the map or the class is empty there. Means are over the images
that have the figure in every run without a ``problem``; a run with one has None for every figure and picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.grad_cam.maps import Maps, has_closed_form, maps_on_image
from dropclass_deploy.analysis.grad_cam.means import MAPS, ON, shared_means
from dropclass_deploy.analysis.grad_cam.pairs import (
    Pair,
    confused_pairs,
    confusion_rates,
    images_of,
    is_mistaken,
    named_pairs,
)
from dropclass_deploy.analysis.panels import heated, outlined, photo_png, shrunk
from dropclass_deploy.analysis.subject import Section, Subject
from dropclass_deploy.core.errors import ModelError, first_line
from dropclass_deploy.core.metrics import to_json
from dropclass_deploy.core.progress import Advance
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels

PAIRS = 6
MEASURED = 8
SHOWN = 1
_NOTHING: dict[str, Any] = dict.fromkeys(ON)


@dataclass(frozen=True)
class _Look:
    """One image of a pair."""

    image: Pixels
    regions: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
    counted: npt.NDArray[np.bool_]


def grad_cam_section(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    confusions: Sequence[npt.NDArray[np.int64]],
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    limit: int = PAIRS,
    measured: int = MEASURED,
    shown: int = SHOWN,
    layer: str | None = None,
    advance: Advance | None = None,
) -> Section:
    """Explain confused classes.

    Pairs and images are those of the first subject, for all of them.

    Args:
        subjects: the first is the baseline.
        dataset: the split.
        indices: of the images that ``confusions`` are of.
        confusions: int64 (N, C, C) a subject, rows are the truth.
        pairs: (true class, confusable class) by name; default the baseline's (``confused_pairs``).
        limit: pairs at most, where they are not named.
        measured: images a pair, those with most confused pixels; where there are none, with most of the true class.
        shown: how many of them are drawn.
        layer: see ``class_maps``.
        advance: told after each image of a pair.

    Raises:
        DataError: for a pair that names no class.
    """
    classes = subjects[0].classes
    baseline = confusions[0]
    chosen = confused_pairs(baseline, classes, limit) if pairs is None else named_pairs(pairs, classes)
    places = [images_of(pair, baseline, measured) for pair in chosen]
    work = _Work(subjects, dataset, layer, sum(map(len, places)), advance)
    rates = [confusion_rates(counts) for counts in confusions]
    seen = [
        [work.measure(pair, indices[place], number if rank < shown else None) for rank, place in enumerate(own)]
        for number, (pair, own) in enumerate(zip(chosen, places, strict=True))
    ]
    work.leave_out([run for looks in seen for look in looks for run in look["runs"]])
    entries, maps = [], []
    for number, (pair, own, looks) in enumerate(zip(chosen, places, seen, strict=True)):
        entries.append(_pair_entry(pair, looks, work, confusions, rates))
        for look, place in zip(looks[:shown], own, strict=False):
            pixels = int(baseline[place, pair.truth, pair.confused])
            maps.append({"pair": number, "confused_pixels": pixels, **look["shown"]})
    content = {"layer": layer, "runs": work.run_entries(), "pairs": entries, "maps": maps}
    return Section(content, work.pictures)


class _Work:
    """What goes on over all pairs: pictures, problems, progress."""

    def __init__(
        self, subjects: Sequence[Subject], dataset: Dataset, layer: str | None, total: int, advance: Advance | None
    ) -> None:
        self.subjects, self.dataset, self.layer = subjects, dataset, layer
        self.total, self.done, self.advance = total, 0, advance
        self.pictures: dict[str, bytes] = {}
        self.problems: dict[str, str] = {}
        if layer is None:
            self.problems = {run.name: run.no_classifier for run in subjects if run.classifier is None}

    def run_entries(self) -> list[dict[str, Any]]:
        """What is known of each run."""
        return [
            {
                "name": run.name,
                "closed_form": self.layer is None and has_closed_form(run.model, run.classifier),
                "problem": self.problems.get(run.name),
            }
            for run in self.subjects
        ]

    def measure(self, pair: Pair, index: int, number: int | None) -> dict[str, Any]:
        """Figures of one image for every run; with the pair's number also its pictures."""
        look = self._look(pair, index)
        stem = f"grad_cam/pair{number}-image{index}"
        runs = []
        for place, subject in enumerate(self.subjects):
            maps = self._maps(subject, look.image, pair)
            runs.append({"name": subject.name, **_figures(maps, look)})
            if number is not None:
                self._draw(f"{stem}-run{place}", maps, look, runs[-1])
        figures: dict[str, Any] = {
            "runs": runs,
            "even": {on: _share(np.ones_like(look.counted), look, place) for place, on in enumerate(ON)},
        }
        if number is not None:
            drawn = outlined(outlined(shrunk(look.image), look.regions[1], (120, 200, 255)), look.regions[0])
            self.pictures[f"{stem}.png"] = photo_png(drawn)
            figures["shown"] = {"image": self.dataset.key(index), "picture": f"{stem}.png", "runs": runs}
        self.done += 1
        if self.advance is not None:
            self.advance(self.done, self.total)
        return figures

    def leave_out(self, runs: Sequence[dict[str, Any]]) -> None:
        """Nothing of a run with a problem, also of the images that it came to before."""
        for run in (run for run in runs if run["name"] in self.problems):
            for name in MAPS:
                self.pictures.pop(run[name].get("picture"), None)
                run[name] = dict.fromkeys(run[name])

    def _look(self, pair: Pair, index: int) -> _Look:
        truth = self.dataset.mask(index)
        regions = (truth == pair.truth, truth == pair.confused)
        counted = truth != self.subjects[0].classes.ignore_index
        return _Look(self.dataset.image(index), regions, counted)

    def _maps(self, subject: Subject, image: Pixels, pair: Pair) -> Maps | None:
        if subject.name in self.problems:
            return None
        try:
            return maps_on_image(subject, image, (pair.truth, pair.confused), self.layer)
        except ModelError as error:
            self.problems[subject.name] = str(error)
        except (RuntimeError, MemoryError) as error:
            # Whatever the network dies of, the other runs go on without it.
            self.problems[subject.name] = first_line(error)
        return None

    def _draw(self, stem: str, maps: Maps | None, look: _Look, entry: dict[str, Any]) -> None:
        for place, name in enumerate(MAPS):
            path = None if maps is None else f"{stem}-{name.partition('_')[0]}.png"
            if maps is not None and path is not None:
                self.pictures[path] = photo_png(outlined(heated(look.image, maps[place]), look.regions[place]))
            entry[name]["picture"] = path


def _figures(maps: Maps | None, look: _Look) -> dict[str, Any]:
    if maps is None:
        return {name: dict(_NOTHING) for name in MAPS}
    return {
        name: {on: _share(maps[place], look, region) for region, on in enumerate(ON)} for place, name in enumerate(MAPS)
    }


def _share(heat: npt.NDArray[Any], look: _Look, region: int) -> float | None:
    """Share of a map (H, W) on a region, among labelled pixels; None for an empty map or region."""
    flags = look.regions[region]
    values = np.where(look.counted, heat, 0).astype(np.float64)
    total = values.sum()
    return float(values[flags].sum() / total) if total > 0 and flags.any() else None


def _pair_entry(
    pair: Pair,
    looks: list[dict[str, Any]],
    work: _Work,
    confusions: Sequence[npt.NDArray[np.int64]],
    rates: Sequence[npt.NDArray[np.float64]],
) -> dict[str, Any]:
    able = [place for place, run in enumerate(work.subjects) if run.name not in work.problems]
    means = shared_means(looks, able, len(work.subjects))
    rate = [to_json(float(own[pair.truth, pair.confused])) for own in rates]
    return {
        "truth": pair.truth,
        "confused": pair.confused,
        "mistaken": is_mistaken(pair, confusions[0]),
        "images": len(looks),
        **means,
        "runs": [
            {"name": run.name, "rate": rate[place], **means["runs"][place]} for place, run in enumerate(work.subjects)
        ],
    }
