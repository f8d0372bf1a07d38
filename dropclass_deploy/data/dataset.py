"""What every data set gives: images and masks of class ids by index, whatever its files look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.core.preprocess import ValueRange
from dropclass_deploy.data.file_pairs import FilePair
from dropclass_deploy.data.images import Pixels, encode_png, image_size, read_image, read_mask
from dropclass_deploy.data.label_map import LabelMap


class Dataset(ABC):
    """One split of a data set.

    Attributes:
        spec: what opened it, ``FORMAT:PATH``.
        split: its name.
        classes: names and colours; ``rare`` stays empty until training pixels were counted.
        value_range: raw values that ``image`` made 0 and 255, where its files have one channel; None where it did nothing
            of the kind. It belongs to what a network is trained with, and travels with it.
    """

    spec: str
    split: str
    classes: ClassTable
    value_range: ValueRange | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def key(self, index: int) -> str:
        """A short name of the image, unique within the split."""

    @abstractmethod
    def image(self, index: int) -> Pixels:
        """The image, uint8 (H, W, 3), RGB."""

    @abstractmethod
    def mask(self, index: int) -> Pixels:
        """Its class ids, uint8 (H, W); 255 is "ignore"."""

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file; a PNG when there is no file."""
        return encode_png(self.image(index))

    def image_path(self, index: int) -> Path | None:
        """The image file, or None when there is none."""
        del index
        return None

    def label_path(self, index: int) -> Path | None:
        """The mask file, or None when there is none."""
        del index
        return None


class FileDataset(Dataset):
    """A split whose images and masks are files, with a map from the raw mask values to class ids.

    Attributes:
        labels: raw mask value → class id.
    """

    def __init__(
        self,
        spec: str,
        split: str,
        classes: ClassTable,
        labels: LabelMap,
        pairs: Sequence[FilePair],
        value_range: ValueRange | None = None,
    ) -> None:
        if not pairs:
            raise DataError(f"the split {split!r} of {spec} is empty", expected="at least one image with its mask")
        self.spec, self.split, self.classes = spec, split, classes
        self.labels, self.value_range = labels, value_range
        self._pairs = tuple(pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def key(self, index: int) -> str:
        """The stem that image and mask share."""
        return self._pairs[index].stem

    def image(self, index: int) -> Pixels:
        """The decoded image file, uint8 (H, W, 3), RGB.

        Raises:
            DataError: when it cannot be decoded.
        """
        return read_image(self._pairs[index].image, self.value_range)

    def mask(self, index: int) -> Pixels:
        """The mask file as class ids, uint8 (H, W); 255 is "ignore". Never interpolated.

        Raises:
            DataError: when it cannot be decoded, is not as large as its image, or holds a raw value without a class.
        """
        pair = self._pairs[index]
        raw = read_mask(pair.mask)
        size = image_size(pair.image)
        if raw.shape != size:
            raise DataError(
                f"the image {pair.image} is {size[1]}×{size[0]} and its mask {pair.mask} {raw.shape[1]}×{raw.shape[0]}",
                expected="equal sizes",
                remedy="export the mask again at the size of its image",
            )
        return self.labels.apply(raw, pair.mask)

    def image_bytes(self, index: int) -> bytes:
        """The bytes of the image file as they are stored."""
        path = self._pairs[index].image
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})", remedy="check the file") from error

    def image_path(self, index: int) -> Path:
        """The image file."""
        return self._pairs[index].image

    def label_path(self, index: int) -> Path:
        """The mask file."""
        return self._pairs[index].mask
