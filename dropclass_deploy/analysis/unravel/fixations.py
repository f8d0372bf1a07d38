"""From predicted pixels back to the image points that caused them.

CNN-fixations (Mopuri, Garg and Babu, arXiv 1708.06670), begun at the pixels of a segmentation instead of at one class
score: each pixel's logit is followed back through the strongest contribution of every operator until it stands on a pixel
of the image. The way is that of the class's own logit: where a class wins because the others' logits are low, it does not
say why they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropclass_deploy.analysis.subject import Subject
from dropclass_deploy.analysis.unravel.points import Points, merged
from dropclass_deploy.analysis.unravel.rules import KEEPS, POINTWISE, back_through
from dropclass_deploy.analysis.unravel.tape import Tape, record
from dropclass_deploy.core.sliding_window import Normalise, Window, blended_rows
from dropclass_deploy.data.images import Pixels, resize_image
from dropclass_deploy.models.modes import evaluating
from dropclass_deploy.models.outputs import logits_of

MAX_POINTS = 2048
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fixations:
    """Image points, and how many followed pixels each stands for.

    Attributes:
        places: int64 (P, 2), (y, x), distinct.
        weights: int64 (P,); their sum is ``arrived``.
        pixels: of the region.
        followed: of these; the region is thinned evenly where it has more than can be followed.
        ended: how many ended on the way, by the operator that they ended in, or "padding" for what a window lacks of the
            image: the followed are the arrived plus these.
    """

    places: Integers
    weights: Integers
    pixels: int
    followed: int
    ended: dict[str, int]

    @property
    def arrived(self) -> int:
        """How many of the followed pixels have an image point."""
        return int(self.weights.sum())

    def map(self, height: int, width: int) -> Integers:
        """int64 (height, width): the weight at every pixel."""
        weights = np.zeros((height, width), dtype=np.int64)
        weights[self.places[:, 0], self.places[:, 1]] = self.weights
        return weights


def fixations(
    model: nn.Module,
    images: Tensor,
    region: Flags,
    class_id: int,
    *,
    max_points: int = MAX_POINTS,
    corners: bool = False,
) -> Fixations:
    """Follow the logits of a class at a region's pixels back to the network's input.

    Counts never grow: each point goes to one place or ends. The mode of the model is left as it was.

    Args:
        model: (1, 3, h, w) → logits.
        images: (1, 3, h, w), normalised.
        region: bool (H, W): the pixels to start from; the logits are resized to this size, bilinearly.
        class_id: whose logits.
        max_points: pixels that are followed at most, taken evenly in reading order.
        corners: whether that resize aligns corners.

    Returns:
        Points (y, x) of the input, (h, w).

    Raises:
        ModelError: naming an operator that has no rule.
    """
    # At the input's size first, then at the region's: two steps, as the deployed network takes them.
    steps = (tuple(images.shape[-2:]), region.shape)

    def run(image: Tensor) -> Tensor:
        logits = logits_of(model(image))
        for size in steps:
            if tuple(logits.shape[-2:]) != size:
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=corners)
        return logits

    with evaluating(model):
        tape, _ = record(run, images, KEEPS, POINTWISE)
    inside = np.flatnonzero(region)
    chosen = inside if len(inside) <= max_points else inside[np.arange(max_points) * len(inside) // max_points]
    start = torch.from_numpy(chosen + class_id * region.size).to(images.device)
    found, ended = walk_back(tape, Points.starting_at(start))
    return _on_input(found, tape.image.shape, len(inside), len(chosen), ended)


def walk_back(tape: Tape, start: Points) -> tuple[Points, dict[str, int]]:
    """Points of the tape's output as points of its image, and how many ended in which operator.

    Raises:
        ModelError: naming an operator that has no rule.
    """
    with torch.inference_mode():
        waiting = {tape.output.id: start}
        ended: dict[str, int] = {}
        for step in reversed(tape.steps):
            points = waiting.pop(step.output.id, None)
            if points is None or not len(points.index):
                continue
            before = points.total
            for value, part in back_through(step, points, tape):
                before -= part.total
                there = waiting.get(value.id)
                waiting[value.id] = merged([part] if there is None else [there, part])
            if before:
                ended[step.name] = ended.get(step.name, 0) + before
        nothing = torch.zeros(0, dtype=torch.int64, device=start.index.device)
        return waiting.get(tape.image.id, Points(nothing, nothing, nothing)), ended


def fixations_on_image(
    subject: Subject, image: Pixels, region: Flags, class_id: int, max_points: int = MAX_POINTS
) -> Fixations:
    """Follow a region of an image uint8 (H, W, 3) as the subject sees the image.

    The image is resized as the preprocessing says, and the points are brought back to its own pixels. A network that sees
    windows sees one here: that of its size around the region's middle, moved into the image; a region that reaches beyond
    it is followed inside. An image smaller than the window is padded as in deployment; ways into the padding have ended
    there ("padding").

    Raises:
        ModelError: naming an operator that has no rule.
    """
    preprocess = subject.segment.preprocess
    seen = image if preprocess.size is None else resize_image(image, preprocess.size)
    to_image = _scaling(seen.shape[:2], image.shape[:2])
    if preprocess.window is None:
        view = _View(preprocess.normalise(seen), region, (0, 0), (0, 0))
    else:
        view = _window_around(seen, region, preprocess.window, preprocess.normalise)
    tensor = torch.from_numpy(view.planes).to(subject.segment.device)
    found = view.in_image(
        fixations(subject.model, tensor, view.region, class_id, max_points=max_points), seen.shape[:2]
    )
    moved = np.stack([to_image[axis](found.places[:, axis]) for axis in (0, 1)], axis=1)
    return Fixations(*_gathered(moved, found.weights), found.pixels, found.followed, found.ended)


@dataclass(frozen=True)
class _View:
    """What of an image the network is given.

    Attributes:
        planes: float32 (1, 3, h, w), normalised.
        region: bool; (h, w) where ``planes`` are a window.
        corner: (y, x) in the image of the first pixel that is not padding.
        before: rows and columns of padding in front of it.
    """

    planes: npt.NDArray[np.float32]
    region: Flags
    corner: tuple[int, int]
    before: tuple[int, int]

    def in_image(self, found: Fixations, size: tuple[int, ...]) -> Fixations:
        """Points of ``planes`` as pixels of an image of ``size``; those in the padding have ended."""
        places = found.places + np.subtract(self.corner, self.before)
        inside = ((places >= 0) & (places < size)).all(axis=1)
        lost = int(found.weights[~inside].sum())
        ended = {**found.ended, "padding": lost} if lost else found.ended
        return Fixations(places[inside], found.weights[inside], found.pixels, found.followed, ended)


def _window_around(seen: Pixels, region: Flags, window: Window, normalise: Normalise) -> _View:
    """The window around a region's middle, as the sliding window gives it to the network."""
    scales = _scaling(region.shape, seen.shape[:2])
    top, left = (
        int(np.clip(int(scale(np.atleast_1d(int(at.mean())))[0]) - size // 2, 0, max(0, whole - size)))
        for scale, at, size, whole in zip(scales, np.nonzero(region), window.size, seen.shape[:2], strict=True)
    )
    height, width = window.size
    cut = np.ascontiguousarray(seen[top : top + height, left : left + width])
    own = _nearest(region, seen.shape[:2])[top : top + height, left : left + width]
    given: list[npt.NDArray[np.float32]] = []

    def keep(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        given.append(planes)
        return planes

    # A piece no larger than the window is one window: the planes are those that the deployed network would get of it.
    for _ in blended_rows(cut, window, normalise, keep):
        pass
    missing = [size - inside for size, inside in zip(window.size, cut.shape[:2], strict=True)]
    rows, columns = ((gap // 2, gap - gap // 2) for gap in missing)
    return _View(given[0], np.pad(own, (rows, columns)), (top, left), (rows[0], columns[0]))


def _on_input(points: Points, shape: tuple[int, ...], pixels: int, followed: int, ended: dict[str, int]) -> Fixations:
    """Channels and directions of one pixel together."""
    height, width = shape[-2:]
    place = (points.index % (height * width)).cpu().numpy()
    places = np.stack([place // width, place % width], axis=1)
    return Fixations(*_gathered(places, points.count.cpu().numpy()), pixels, followed, ended)


def _gathered(places: Integers, weights: Integers) -> tuple[Integers, Integers]:
    """Distinct places in reading order, and the sums of their weights."""
    distinct, which = np.unique(places, axis=0, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, which.reshape(-1), weights)
    return distinct.astype(np.int64), sums


def _scaling(
    source: tuple[int, ...], target: tuple[int, ...]
) -> tuple[Callable[[Integers], Integers], Callable[[Integers], Integers]]:
    """For rows and for columns: pixels of one size as those of another that hold their middles."""

    def scaled(own: int, other: int) -> Callable[[Integers], Integers]:
        return lambda at: (2 * at + 1) * other // (2 * own)

    return scaled(source[0], target[0]), scaled(source[1], target[1])


def _nearest(region: Flags, size: tuple[int, ...]) -> Flags:
    rows, columns = (scale(np.arange(own)) for scale, own in zip(_scaling(size, region.shape), size, strict=True))
    picked: Flags = region[rows[:, None], columns]
    return picked
