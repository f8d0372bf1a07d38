"""The strongest links of the baseline as pictures: one image each, before and after the erasure, as every run sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dropclass_deploy.analysis.co_location.audit import AuditResult
from dropclass_deploy.analysis.co_location.influence import influence_of
from dropclass_deploy.analysis.co_location.plan import AuditPlan
from dropclass_deploy.analysis.panels import inside
from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels, colour_mask, encode_png

MOST = 3
_PLANNED_AN_EXAMPLE = 40
"""An example costs two predictions a run: with one for 40 planned ones they add a twentieth at most."""
_TILE_WIDTH, _GAP, _PHOTO_COLOURS = 240, 6, 64
_WHITE = 255


@dataclass(frozen=True)
class Example:
    """One link in one image.

    Attributes:
        content: for ``analysis.json``: "class", "erased", "image" (its key), "pixels" (of the class in the truth) and
            "runs" with the pixels found "before" and "after".
        picture: PNG; on the left the image as it is, on the right the one with the class erased; below them what each run
            predicts, in the colours of the classes, the class's true outline in white, erased pixels black.
    """

    content: dict[str, Any]
    picture: bytes


def strongest_links(
    subjects: Sequence[Subject], dataset: Dataset, plan: AuditPlan, results: Sequence[AuditResult]
) -> tuple[Example, ...]:
    """At most ``MOST`` examples, of different classes, the largest drop first; fewer where few images were audited.

    Args:
        subjects: the runs, the baseline first.
        dataset: that was audited.
        plan: of the audit.
        results: of the runs.

    Raises:
        DataError: for a file that cannot be read.
    """
    drop = influence_of(results[0], plan.images_with).drop
    links: dict[int, int] = {}
    for place in np.argsort(-drop, axis=None, kind="stable"):
        y, x = divmod(int(place), len(drop))
        if drop[y, x] > 0 and results[0].clearest[x, y] >= 0:
            links.setdefault(y, x)
    wanted = min(MOST, plan.evaluations // _PLANNED_AN_EXAMPLE)
    chosen = list(links.items())[:wanted]
    return tuple(_example(subjects, dataset, plan, int(results[0].clearest[x, y]), y, x) for y, x in chosen)


def _example(subjects: Sequence[Subject], dataset: Dataset, plan: AuditPlan, index: int, y: int, x: int) -> Example:
    image, truth = dataset.image(index), dataset.mask(index)
    classes, erased, own = dataset.classes, truth == x, truth == y
    without = plan.eraser(image, erased, index, x)
    rows, runs = [(_photo(image), _photo(without))], []
    for subject in subjects:
        before, after = subject.segment(image), subject.segment(without)
        rows.append(
            (_labels(before, own, classes), _labels(np.where(erased, classes.ignore_index, after), own, classes))
        )
        found = {"before": int((own & (before == y)).sum()), "after": int((own & (after == y)).sum())}
        runs.append({"name": subject.name, **found})
    content = {
        "class": classes.names[y],
        "erased": classes.names[x],
        "image": dataset.key(index),
        "pixels": int(own.sum()),
        "runs": runs,
    }
    return Example(content, encode_png(_stacked(rows)))


def _photo(image: Pixels) -> Pixels:
    """A tile in few colours, which makes the file a third as large."""
    small = Image.fromarray(_sized(image, Image.Resampling.BILINEAR))
    return np.array(small.quantize(_PHOTO_COLOURS, dither=Image.Dither.NONE).convert("RGB"))


def _labels(mask: npt.NDArray[np.integer[Any]], own: npt.NDArray[np.bool_], classes: ClassTable) -> Pixels:
    """A tile of a mask (H, W) in the colours of its classes, the border of ``own`` (H, W) in white."""
    tile = _sized(colour_mask(mask, classes), Image.Resampling.NEAREST)
    shown = _sized(own.astype(np.uint8), Image.Resampling.NEAREST) > 0
    tile[shown & ~inside(shown)] = _WHITE
    return tile


def _sized(picture: Pixels, how: Image.Resampling) -> Pixels:
    height, width = picture.shape[:2]
    tall = max(1, round(height * _TILE_WIDTH / width))
    return np.array(Image.fromarray(picture).resize((_TILE_WIDTH, tall), how))


def _stacked(rows: Sequence[tuple[Pixels, Pixels]]) -> Pixels:
    """Two tiles a row, rows below one another, white between."""
    tall = rows[0][0].shape[0]
    sheet = np.full((len(rows) * (tall + _GAP) - _GAP, 2 * _TILE_WIDTH + _GAP, 3), _WHITE, dtype=np.uint8)
    for at, row in enumerate(rows):
        for column, tile in enumerate(row):
            top, left = at * (tall + _GAP), column * (_TILE_WIDTH + _GAP)
            sheet[top : top + tall, left : left + _TILE_WIDTH] = tile
    return sheet
