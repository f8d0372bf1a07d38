"""Sets of small grey images with a class each, of which composites are made: ``digits:``, ``mnist:PATH``.

``digits:`` are scikit-learn's 1,797 handwritten digits of 8×8 pixels, which come with the package: the probe runs offline.
``mnist:PATH`` is a folder with the four files of MNIST, or of Fashion-MNIST, which has the same format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dropclass_deploy.analysis.spurious.idx import read_idx
from dropclass_deploy.core.errors import DataError, MissingExtraError

_DIGITS_TEST_SHARE = 0.3
_MNIST_NAMES = {"train": "train", "test": "t10k"}
_FORMATS = "digits: or mnist:PATH"


@dataclass(frozen=True)
class Source:
    """Images of one size, with their classes.

    Attributes:
        images: uint8 (n, h, w), bright on black.
        labels: int64 (n,), every class from 0 to the highest occurs.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"a source has images of shape {self.images.shape} and labels of shape {self.labels.shape}",
                expected="(n, h, w) and (n,)",
            )
        missing = sorted(set(range(self.num_classes)) - set(self.labels.tolist()))
        if not self.labels.size or missing:
            raise DataError(f"a source has no image of the classes {missing}", expected="images of every class")

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.labels.max()) + 1 if self.labels.size else 0

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of an image."""
        return self.images.shape[1], self.images.shape[2]


@dataclass(frozen=True)
class Splits:
    """A source's images for training, and others for testing."""

    train: Source
    test: Source


def open_source(spec: str) -> Splits:
    """The splits of ``digits:`` or ``mnist:PATH``.

    Raises:
        DataError: for another spec, or when files are missing or damaged.
        MissingExtraError: when scikit-learn is not installed.
    """
    form, colon, location = spec.partition(":")
    if form == "digits" and colon and not location:
        return _digits()
    if form == "mnist" and location:
        folder = Path(location)
        return Splits(_mnist(folder, "train"), _mnist(folder, "test"))
    raise DataError(f"{spec!r} names no source of images", expected=_FORMATS)


def _digits() -> Splits:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "probe") from error
    values, labels = load_digits(return_X_y=True)
    # Counts of dark pixels from 0 to 16.
    images = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    # The file is in the order of the writers: its end is other people's handwriting.
    cut = round(len(labels) * (1 - _DIGITS_TEST_SHARE))
    labels = labels.astype(np.int64)
    return Splits(Source(images[:cut], labels[:cut]), Source(images[cut:], labels[cut:]))


def _mnist(folder: Path, split: str) -> Source:
    name = _MNIST_NAMES[split]
    images = read_idx(_file(folder, f"{name}-images", "idx3-ubyte"), axes=3)
    labels = read_idx(_file(folder, f"{name}-labels", "idx1-ubyte"), axes=1)
    if len(images) != len(labels):
        raise DataError(f"the {split} split in {folder} has {len(images)} images and {len(labels)} labels")
    return Source(images, labels.astype(np.int64))


def _file(folder: Path, stem: str, kind: str) -> Path:
    """The file under one of the names that it goes by: with a hyphen or a dot, packed or not."""
    names = [f"{stem}{sign}{kind}{packed}" for sign in "-." for packed in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {names[0]}", expected="the four files of MNIST, packed (.gz) or not")
