"""The images on which a rare class comes out worst, with maps of what is right, missed and false."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.failures.drawing import (
    CORRECT,
    FALSE,
    MISSED,
    boxed,
    error_map,
    error_statuses,
    legend_tile,
)
from dropclass_deploy.analysis.failures.masks import ChosenMasks, Shown
from dropclass_deploy.analysis.subject import Confusions, image_ious

FOLDER = "failures/worst"
MIN_SHARE, MIN_PIXELS = 0.001, 16
"""Of an image's labelled pixels the class must have this share, and this many: on less an IoU is a matter of luck."""

MIN_WINDOW = 0.5
"""Share of the image's height and width that is shown at least."""
AROUND = 1.3

LEGEND = (("correct", CORRECT), ("missed", MISSED), ("false", FALSE))

_NO_BOXES: npt.NDArray[np.int64] = np.zeros((0, 4), dtype=np.int64)


def judged_images(confusions: Confusions, index: int) -> npt.NDArray[np.int64]:
    """Places of the images that hold enough of a class for an IoU of their own."""
    labelled, of_class = confusions.sum(axis=(1, 2)), confusions[:, index].sum(axis=1)
    return np.flatnonzero((of_class >= MIN_PIXELS) & (of_class >= MIN_SHARE * labelled))


def worst_places(confusions: Sequence[Confusions], index: int, most: int) -> dict[int, list[int]]:
    """Place of an image → which runs (by number) have their worst IoU of the class there.

    The runs choose in turn, each its worst image, then its second worst: chosen on one run alone, the images would flatter
    the others. Of equal IoU the image with more of the class comes first.
    """
    judged = judged_images(confusions[0], index)
    pixels = confusions[0][judged, index].sum(axis=1)
    orders = [judged[np.lexsort((-pixels, image_ious(each)[judged, index]))] for each in confusions]
    chosen: dict[int, list[int]] = {}
    for rank in range(min(most, len(judged))):
        for run, order in enumerate(orders):
            place = int(order[rank])
            if place in chosen or len(chosen) < most:
                chosen.setdefault(place, []).append(run)
    return chosen


def worst_of_class(
    index: int, chosen: ChosenMasks, confusions: Sequence[Confusions], most: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The worst images of a class: content and pictures."""
    places = worst_places(confusions, index, most)
    pictures: dict[str, bytes] = {}
    images = []
    for place, runs in places.items():
        shown = chosen.at(place)
        stem = f"{FOLDER}/{index:03d}-{place:04d}"
        window = _window(shown, index)
        pictures[f"{stem}-image.png"] = boxed(shown.image[window], _NO_BOXES, smooth=True)
        maps = []
        for number in range(len(shown.masks)):
            content, picture = _map(shown, number, index, chosen.classes.ignore_index, window)
            path = f"{stem}-run{number}.png"
            pictures[path] = picture
            iou = image_ious(confusions[number][place][None])[0, index]
            maps.append({"name": chosen.names[number], "iou": float(iou), "picture": path, **content})
        images.append(
            {
                "key": shown.key,
                "worst_of": [chosen.names[run] for run in runs],
                "pixels": int(confusions[0][place, index].sum()),
                "window": [window[0].start, window[1].start, window[0].stop, window[1].stop],
                "image": f"{stem}-image.png",
                "runs": maps,
            }
        )
    judged = len(judged_images(confusions[0], index))
    return {"name": chosen.classes.names[index], "judged_images": judged, "images": images}, pictures


def _map(
    shown: Shown, number: int, index: int, ignore_index: int, window: tuple[slice, slice]
) -> tuple[dict[str, int], bytes]:
    """Counts of the whole image, and the map of a window of it that holds all of them."""
    statuses = error_statuses(shown.truth, shown.masks[number], index, ignore_index)
    counts = {word: int(np.count_nonzero(statuses == status)) for word, status in LEGEND}
    return counts, error_map(shown.image[window], statuses[window])


def _window(shown: Shown, index: int) -> tuple[slice, slice]:
    """Rows and columns to show: all that is, or that any run predicts as, the class, with what is around it.

    Never less than a part of the image from which one can still see what is looked at.
    """
    of_class = np.logical_or.reduce([mask == index for mask in (shown.truth, *shown.masks)])
    slices = []
    for axis in (0, 1):
        length = of_class.shape[axis]
        places = np.flatnonzero(of_class.any(axis=1 - axis))
        low, high = int(places[0]), int(places[-1]) + 1
        wanted = min(length, max(round(MIN_WINDOW * length), round((high - low) * AROUND)))
        start = min(max(0, (low + high - wanted) // 2), length - wanted)
        slices.append(slice(start, start + wanted))
    return slices[0], slices[1]


def legend() -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """What colour and pattern of an error map mean: a small picture a word."""
    tiles = {f"{FOLDER}/legend-{word}.png": legend_tile(status) for word, status in LEGEND}
    return [{"word": word, "picture": path} for (word, _), path in zip(LEGEND, tiles, strict=True)], tiles
