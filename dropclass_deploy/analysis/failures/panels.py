"""Image, truth and every run's mask side by side, what differs boxed (Figure 2 of arXiv 2111.00531)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.failures.drawing import boxed
from dropclass_deploy.analysis.failures.masks import ChosenMasks
from dropclass_deploy.analysis.regions import Bools, boxes_of, label_regions, opened
from dropclass_deploy.analysis.subject import Confusions, image_means
from dropclass_deploy.core.metrics import to_json
from dropclass_deploy.data.images import Integers, colour_mask

FOLDER = "failures/panels"


@dataclass(frozen=True)
class Choice:
    """An image to show: its place among those analysed, and why it."""

    place: int
    reason: str


@dataclass(frozen=True)
class Regions:
    """Regions of an image, largest first.

    Attributes:
        boxes: int64 (n, 4), top, left, bottom, right; bottom and right just outside.
        pixels: (n, H, W) bool, of each region.
    """

    boxes: npt.NDArray[np.int64]
    pixels: Bools


def choose_images(confusions: Sequence[Confusions], names: Sequence[str], most: int) -> list[Choice]:
    """Images that show what the figures say, chosen by a rule and not by taste.

    With one run: those with the lowest mean IoU, and the last one that of the median. With more: of each run against the
    first, in turn, the largest gain and the largest loss of the image's mean IoU, then the second largest …
    """
    means = [image_means(each) for each in confusions]
    if len(means) == 1:
        return _lowest_and_median(means[0], most)
    chosen: dict[int, Choice] = {}
    deltas = [each - means[0] for each in means[1:]]
    for rank in range(most):
        for name, delta in zip(names[1:], deltas, strict=True):
            for word, sign in (("gain", 1.0), ("loss", -1.0)):
                place = _ranked(sign * delta, rank)
                if place is not None and place not in chosen and len(chosen) < most:
                    chosen[place] = Choice(place, f"{_ORDINALS[min(rank, 3)]}largest {word} of {name} on {names[0]}")
    return list(chosen.values())


_ORDINALS = ("", "second ", "third ", "next ")


def _ranked(values: npt.NDArray[np.float64], rank: int) -> int | None:
    """The place of the rank-th largest value; None where there is none above 0."""
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return int(order[rank]) if rank < len(order) and values[order[rank]] > 0 else None


def _lowest_and_median(means: npt.NDArray[np.float64], most: int) -> list[Choice]:
    order = [int(place) for place in np.argsort(means, kind="stable") if not np.isnan(means[place])]
    lowest = [Choice(place, "lowest mean IoU") for place in order[: max(1, most - 1)]]
    middle = order[len(order) // 2] if order else None
    extra = middle is not None and len(lowest) < most and middle not in {choice.place for choice in lowest}
    return [*lowest, Choice(middle, "median mean IoU")] if extra and middle is not None else lowest


def differing_regions(truth: Integers, masks: Sequence[Integers], ignore_index: int, most: int) -> Regions:
    """Where any run's mask differs from the first's, or, of one run, where it errs; ignored pixels left out.

    Lines thinner than three pixels, which run along every border and would join everything, are taken away first; where
    nothing else differs they stay.
    """
    others = masks[1:] if len(masks) > 1 else [truth]
    differs = np.logical_or.reduce([other != masks[0] for other in others]) & (truth != ignore_index)
    thick = opened(differs)
    shown = thick if thick.any() else differs
    labels, count = label_regions(shown, shown)
    areas = np.bincount(labels[shown], minlength=count)
    largest = np.argsort(-areas, kind="stable")[:most]
    pixels = np.array([labels == region for region in largest]).reshape(len(largest), *truth.shape)
    return Regions(boxes_of(labels, count)[largest], pixels)


def panel(
    choice: Choice, chosen: ChosenMasks, confusions: Sequence[Confusions], boxes: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """One image's row of pictures, and what it shows as figures.

    Args:
        choice: the image.
        chosen: images, truths and masks.
        confusions: a run, (N, C, C).
        boxes: at most so many.
    """
    shown = chosen.at(choice.place)
    ignore_index = chosen.classes.ignore_index
    regions = differing_regions(shown.truth, shown.masks, ignore_index, boxes)
    folder = f"{FOLDER}/{choice.place:04d}"
    pictures = {
        f"{folder}-image.png": boxed(shown.image, regions.boxes, smooth=True),
        f"{folder}-truth.png": boxed(colour_mask(shown.truth, chosen.classes), regions.boxes, smooth=False),
    }
    runs = []
    for number, (name, mask) in enumerate(zip(chosen.names, shown.masks, strict=True)):
        path = f"{folder}-run{number}.png"
        pictures[path] = boxed(colour_mask(mask, chosen.classes), regions.boxes, smooth=False)
        mean = image_means(confusions[number][choice.place][None])[0]
        runs.append({"name": name, "mean_iou": to_json(float(mean)), "picture": path})
    content = {
        "key": shown.key,
        "reason": choice.reason,
        "image": f"{folder}-image.png",
        "truth": f"{folder}-truth.png",
        "runs": runs,
        "boxes": [
            _box(shown.truth, shown.masks, chosen.names, box, pixels)
            for box, pixels in zip(regions.boxes, regions.pixels, strict=True)
        ],
    }
    return content, pictures


def _box(
    truth: Integers, masks: Sequence[Integers], names: Sequence[str], box: npt.NDArray[np.int64], pixels: Bools
) -> dict[str, Any]:
    """Where a box lies, in pixels of the image, and the share of its region that each run has right."""
    top, left, bottom, right = (int(side) for side in box)
    return {
        "left": left,
        "top": top,
        "width": right - left,
        "height": bottom - top,
        "pixels": int(np.count_nonzero(pixels)),
        "right": [
            {"name": name, "share": float((mask[pixels] == truth[pixels]).mean())}
            for name, mask in zip(names, masks, strict=True)
        ],
    }
