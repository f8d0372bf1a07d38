"""Where the runs fail: panels, confusions, worst images, errors by object size and by distance to the class border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dropclass_deploy.analysis.failures.confusions import confusion_content
from dropclass_deploy.analysis.failures.masks import ChosenMasks
from dropclass_deploy.analysis.failures.objects import FOUND
from dropclass_deploy.analysis.failures.panels import choose_images, panel
from dropclass_deploy.analysis.failures.places import ErrorsByPlace
from dropclass_deploy.analysis.failures.worst import MIN_PIXELS, MIN_SHARE, legend, worst_of_class
from dropclass_deploy.analysis.subject import Confusions, Section, Subject
from dropclass_deploy.data.dataset import Dataset


@dataclass(frozen=True)
class FailureOptions:
    """How much is shown.

    Attributes:
        panels: images with every run's mask.
        boxes: at most so many on a panel.
        worst_images: of each rare class.
        rare_classes: those with the fewest truth pixels first; so many have their worst images shown.
    """

    panels: int = 4
    boxes: int = 3
    worst_images: int = 2
    rare_classes: int = 9


def failures_section(
    subjects: Sequence[Subject],
    dataset: Dataset,
    indices: Sequence[int],
    confusions: Sequence[Confusions],
    places: Sequence[ErrorsByPlace],
    options: FailureOptions | None = None,
) -> Section:
    """Everything about failures, after the sweeps; only the few images that are shown are predicted again.

    Args:
        subjects: the runs, the baseline first.
        dataset: the split.
        indices: of the images, as the sweeps saw them.
        confusions: a run, int64 (N, C, C), what its sweep returned.
        places: a run, the observer of its sweep.
        options: how much is shown.
    """
    options = options or FailureOptions()
    chosen = ChosenMasks(subjects, dataset, indices)
    panels, pictures = _panels(chosen, confusions, options)
    worst, more = _worst(chosen, confusions, options)
    words, tiles = legend()
    content = {
        "runs": [
            {
                "name": subject.name,
                "confusion": confusion_content(each.sum(axis=0), subject.classes),
                "distance": place.distance_content(subject.classes.rare),
                "sizes": place.size_content(subject.classes),
            }
            for subject, each, place in zip(subjects, confusions, places, strict=True)
        ],
        "panels": panels,
        "worst": worst,
        "legend": words if worst else [],
        "rules": {"min_share": MIN_SHARE, "min_pixels": MIN_PIXELS, "found": FOUND},
    }
    return Section(content, pictures | more | (tiles if worst else {}))


def _panels(
    chosen: ChosenMasks, confusions: Sequence[Confusions], options: FailureOptions
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    contents, pictures = [], {}
    for choice in choose_images(confusions, chosen.names, options.panels):
        content, own = panel(choice, chosen, confusions, options.boxes)
        contents.append(content)
        pictures.update(own)
    return contents, pictures


def _worst(
    chosen: ChosenMasks, confusions: Sequence[Confusions], options: FailureOptions
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    pixels = confusions[0].sum(axis=(0, 2))
    rare = sorted((index for index in chosen.classes.rare if pixels[index]), key=lambda index: int(pixels[index]))
    contents, pictures = [], {}
    for index in rare[: options.rare_classes]:
        content, own = worst_of_class(index, chosen, confusions, options.worst_images)
        contents.append(content)
        pictures.update(own)
    return contents, pictures
