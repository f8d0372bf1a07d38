"""What stands where a class was erased."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dropclass_deploy.core.errors import MissingExtraError, UserError
from dropclass_deploy.data.images import Pixels

FillName = Literal["dataset_mean", "image_mean", "noise", "inpaint"]
FILLS: tuple[FillName, ...] = get_args(FillName)
_INPAINT_RADIUS = 3  # pixels; OpenCV's own example takes it, and larger ones only blur more


@dataclass(frozen=True)
class Eraser:
    """Takes the pixels of a class out of an image.

    Attributes:
        fill: "dataset_mean": ``mean``; "image_mean": the mean of the image's own pixels, the erased ones among them;
            "noise": each pixel uniform, from a generator seeded with (seed, image index, class id), so that it does not
            depend on the order of images or classes and is the same for every run; "inpaint": what lies around grows
            over it (Telea 2004, OpenCV), and the image's mean where nothing is left around.
        mean: RGB, each 0–255; only "dataset_mean" looks at it.
        seed: at least 0; only "noise" looks at it.
    """

    fill: FillName = "dataset_mean"
    mean: tuple[int, int, int] = (0, 0, 0)
    seed: int = 0

    def __call__(self, image: Pixels, erased: npt.NDArray[np.bool_], index: int, erased_class: int) -> Pixels:
        """A copy of the image, uint8 (H, W, 3), with other values where ``erased`` (H, W).

        Args:
            image: uint8 (H, W, 3), RGB.
            erased: which pixels.
            index: of the image in its split.
            erased_class: the id of the class that the pixels belong to.

        Raises:
            MissingExtraError: for "inpaint" without OpenCV.
        """
        if self.fill == "inpaint" and not erased.all():
            return _inpainted(image, erased)
        result = image.copy()
        result[erased] = self._values(image, erased, index, erased_class)
        return result

    def _values(self, image: Pixels, erased: npt.NDArray[np.bool_], index: int, erased_class: int) -> Pixels:
        """(3,) or (P, 3) for the P erased pixels."""
        if self.fill == "dataset_mean":
            return np.array(self.mean, dtype=np.uint8)
        if self.fill == "noise":
            draws = np.random.default_rng((self.seed, index, erased_class))
            return draws.integers(0, 256, (int(erased.sum()), 3), dtype=np.uint8)
        mean: Pixels = np.rint(image.reshape(-1, 3).mean(axis=0)).astype(np.uint8)
        return mean


def check_fill(fill: str) -> FillName:
    """The fill of that name, once all that it needs is there.

    Raises:
        UserError: when there is no such fill.
        MissingExtraError: for "inpaint" without OpenCV.
    """
    for known in FILLS:
        if known == fill:
            if known == "inpaint":
                _opencv()
            return known
    raise UserError(f"there is no fill {fill!r}", expected=f"one of {', '.join(FILLS)}")


def _inpainted(image: Pixels, erased: npt.NDArray[np.bool_]) -> Pixels:
    # With every pixel masked OpenCV gives the image back as it was: the caller fills those.
    opencv = _opencv()
    grown: Pixels = opencv.inpaint(image, erased.astype(np.uint8), _INPAINT_RADIUS, opencv.INPAINT_TELEA)
    return grown


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "analysis") from error
    return cv2
