"""A built-in data set: a procedural driving scene with a planted link between a rare class and its context.

In the splits train and val the rare class ``PLANTED_CLASS`` (cyclist) always stands on ``CONTEXT_CLASS`` (cycle_path) and
nobody else does. In the split ``unbiased`` that link is broken: cyclists stand on road, pavement or grass, never on
the cycle path, and people on foot stand anywhere. Cyclists have the size and the clothes of people, so a network that
learns the ground instead of the bicycle looks well on val and fails on unbiased.

Shares of the labelled training pixels, in per cent, measured at the defaults: sky 23.8, road 21.0, building 17.1, pavement
9.9, grass 8.9, vegetation 7.1, cycle_path 6.8, car 1.9, pole 1.2, sign 0.8, person 0.8, cyclist 0.6.

``synthetic:size=96x128,train=240,val=60,unbiased=60,seed=0`` names everything that can be chosen; every key may be left
out. Each image is drawn when it is asked for, from a Generator seeded with (seed, split, index): any one can be had
without the others, and is the same every time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

import numpy as np

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.images import Pixels
from dropclass_deploy.data.split_rules import missing_split
from dropclass_deploy.data.street.classes import CLASSES, CONTEXT_CLASS, PLANTED_CLASS
from dropclass_deploy.data.street.scene import draw_scene

__all__ = ["CLASSES", "CONTEXT_CLASS", "PLANTED_CLASS", "SyntheticDataset", "SyntheticOptions", "open_synthetic"]

SPLITS = ("train", "val", "unbiased")
_CACHE_BYTES = 256 * 2**20
_CYCLIST_SHARE = (True, True, False)
"""Which of three images in a row have a cyclist."""


@dataclass(frozen=True)
class SyntheticOptions:
    """What can be chosen after ``synthetic:``.

    Attributes:
        size: (height, width) in pixels, each from 32 to 2048.
        train: images in that split.
        val: images in that split.
        unbiased: images in that split.
        seed: of everything.
    """

    size: tuple[int, int] = (96, 128)
    train: int = 240
    val: int = 60
    unbiased: int = 60
    seed: int = 0


class SyntheticDataset(Dataset):
    """One split of the synthetic street; images are kept once they were drawn, up to 256 MiB."""

    def __init__(self, spec: str, split: str, options: SyntheticOptions) -> None:
        self.spec, self.split, self.classes = spec, split, CLASSES
        self._options = options
        self._drawn: dict[int, tuple[Pixels, Pixels]] = {}

    def __len__(self) -> int:
        return int(getattr(self._options, self.split))

    def key(self, index: int) -> str:
        """Split and number, for example "val_007"."""
        return f"{self.split}_{self._checked(index):03d}"

    def image(self, index: int) -> Pixels:
        """The picture, uint8 (H, W, 3), RGB."""
        return self._scene(index)[0].copy()

    def mask(self, index: int) -> Pixels:
        """Its class ids, uint8 (H, W); 255 on the bonnet of the car that carries the camera."""
        return self._scene(index)[1].copy()

    def _scene(self, index: int) -> tuple[Pixels, Pixels]:
        index = self._checked(index)
        if index not in self._drawn:
            scene = self._draw(index)
            height, width = self._options.size
            if (len(self._drawn) + 1) * height * width * 4 > _CACHE_BYTES:
                return scene
            self._drawn[index] = scene
        return self._drawn[index]

    def _draw(self, index: int) -> tuple[Pixels, Pixels]:
        rng = np.random.default_rng((self._options.seed, SPLITS.index(self.split), index))
        return draw_scene(
            rng,
            self._options.size,
            with_cyclist=_CYCLIST_SHARE[index % len(_CYCLIST_SHARE)],
            linked=self.split != "unbiased",
        )

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return index % len(self)


def open_synthetic(location: str, split: str) -> SyntheticDataset:
    """One split of the synthetic street.

    Args:
        location: options as in the module's docstring, or nothing.
        split: "train", "val" or "unbiased".

    Raises:
        DataError: when an option or the split is unknown or a value is out of range.
    """
    if split not in SPLITS:
        raise missing_split("synthetic: has no split", split, SPLITS)
    return SyntheticDataset(f"synthetic:{location}", split, parse_options(location))


def parse_options(text: str) -> SyntheticOptions:
    """Options from ``size=96x128,train=240,…``; those left out keep their default.

    Raises:
        DataError: when a key is unknown or given twice, or its value is out of range.
    """
    given: dict[str, int | tuple[int, int]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = item.partition("=")
        if key in given:
            raise DataError(f"synthetic: names {key!r} twice", expected="each option once")
        given[key] = _option(key, value)
    return replace(SyntheticOptions(), **given)  # type: ignore[arg-type]


def _option(key: str, value: str) -> int | tuple[int, int]:
    names = [field.name for field in fields(SyntheticOptions)]
    if key not in names:
        raise DataError(f"synthetic: has no option {key!r}", expected="one of " + ", ".join(names))
    if key == "size":
        return _size(value)
    least = 0 if key == "seed" else 1
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
        raise DataError(f"synthetic: {key} is {value!r}", expected=f"a whole number from {least} up")
    return int(value)


def _size(value: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{2,4})x([0-9]{2,4})", value)
    height, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (32 <= height <= 2048 and 32 <= width <= 2048):
        raise DataError(f"synthetic: size is {value!r}", expected="HEIGHTxWIDTH such as 96x128, each from 32 to 2048")
    return height, width
