"""Pictures as data inside the page: image, truth and prediction of the same name side by side."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.images import encode_png, read_image, resize_image

MAX_SAMPLES = 12
MAX_SIDE = 640
"""Pixels: twice the width at which the page shows a picture, for sharp screens."""

_KINDS = ("image", "truth", "prediction", "overlay")
_ALT = {
    "image": "The input image {name}.",
    "truth": "The true classes of {name}, in the colours of the legend.",
    "prediction": "The classes predicted for {name}, in the colours of the legend.",
    "overlay": "The input image {name} under the colours of its predicted classes.",
}


@dataclass(frozen=True)
class Picture:
    """One picture; ``data`` is the base64 of a PNG."""

    kind: str
    alt: str
    data: str
    width: int
    height: int


@dataclass(frozen=True)
class Sample:
    """The pictures of one name."""

    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """The samples that are shown, and how many are not."""

    samples: tuple[Sample, ...]
    left_out: int


def gallery(folder: Path | None) -> Gallery | None:
    """The first ``MAX_SAMPLES`` names of a folder, sorted; None when there is no folder or no picture in it.

    Raises:
        DataError: when the folder does not exist, or a picture in it cannot be read.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise DataError(f"there is no folder of predictions {folder}", expected="NAME.image.png, NAME.prediction.png …")
    found = _by_name(folder)
    if not found:
        return None
    samples = tuple(_sample(name, found[name]) for name in sorted(found)[:MAX_SAMPLES])
    return Gallery(samples, left_out=len(found) - len(samples))


def _by_name(folder: Path) -> dict[str, dict[str, Path]]:
    """Name → kind → path."""
    found: dict[str, dict[str, Path]] = {}
    for path in folder.glob("*.png"):
        name, _, kind = path.stem.rpartition(".")
        if name and kind in _KINDS:
            found.setdefault(name, {})[kind] = path
    return found


def _sample(name: str, paths: dict[str, Path]) -> Sample:
    return Sample(name, tuple(_picture(name, kind, paths[kind]) for kind in _KINDS if kind in paths))


def _picture(name: str, kind: str, path: Path) -> Picture:
    image = read_image(path)
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    encoded = encode_png(resize_image(image, (height, width)))
    return Picture(kind, _ALT[kind].format(name=name), base64.b64encode(encoded).decode("ascii"), width, height)
