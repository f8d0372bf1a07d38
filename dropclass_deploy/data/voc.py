"""PASCAL VOC as its authors distribute it: ``VOCdevkit/VOC2012`` with images, palette masks and split lists.

Masks hold the ids 0 … 20, and 255 on the borders of objects, which counts nowhere. Source of names, ids and palette:
Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 2 and ``VOClabelcolormap.m``.

The split trainaug is there when its list is: the 10,582 images with the masks of Hariharan et al., "Semantic Contours from
Inverse Detectors" (ICCV 2011), looked for in ``SegmentationClassAug/`` first and then in ``SegmentationClass/``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable, Colour
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.file_pairs import find_images, find_masks, located
from dropclass_deploy.data.label_map import LabelMap
from dropclass_deploy.data.layout import Layout, SplitFiles
from dropclass_deploy.data.split_rules import read_split_file, stem_of

_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_IMAGES, _MASKS, _AUGMENTED_MASKS = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
_LISTS = "ImageSets/Segmentation"
_SPLITS = ("train", "val", "trainval")
_AUGMENTED = "trainaug"
_AUGMENTED_LISTS = tuple(
    f"{folder}/{name}.txt" for folder in (_LISTS, "ImageSets/SegmentationAug") for name in ("trainaug", "train_aug")
)
_PREFERRED_YEAR = "VOC2012"
_TREE = f"{_IMAGES}/, {_MASKS}/ and {_LISTS}/ in {_PREFERRED_YEAR}/"


def _colour(index: int) -> Colour:
    """Colour of a class: its id's bits 0, 1, 2 go to red, green, blue at bit 7, the next three at bit 6, and so on."""
    red, green, blue = (
        sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    )
    return red, green, blue


CLASSES = ClassTable(names=_NAMES, palette=tuple(_colour(index) for index in range(len(_NAMES))))
LABELS = LabelMap(
    {index: index for index in range(len(CLASSES))},
    ignored=(IGNORE_INDEX,),
    remedy="use the palette PNGs as distributed; describe other labels with folder: and a classes.yaml",
)


def survey_voc(location: str) -> Layout:
    """The splits of a VOC folder and the files of each.

    Args:
        location: the VOCdevkit folder (its VOC2012, or else the only year in it), or the folder of a year.

    Raises:
        DataError: when the folder, its images, its masks or every split list is missing, or the year is not clear.
    """
    root = located(location)
    if root is None or not root.is_dir():
        raise DataError(f"the folder {location!r} of voc: does not exist", expected=f"VOCdevkit, with {_TREE}")
    year = _year(root)
    _check_tree(year)
    lists = {name: path for name in _SPLITS if (path := year / _LISTS / f"{name}.txt").is_file()}
    splits = {name: partial(_files, year, path) for name, path in lists.items()}
    augmented = next((path for name in _AUGMENTED_LISTS if (path := year / name).is_file()), None)
    if augmented is not None:
        splits[_AUGMENTED] = partial(_augmented_files, year, augmented)
    if not splits:
        raise DataError(f"{year / _LISTS} holds no split list", expected=" or ".join(f"{name}.txt" for name in _SPLITS))
    return Layout(f"voc:{location}", year, splits, CLASSES, LABELS, title="VOC")


def _year(root: Path) -> Path:
    """The folder of the year below VOCdevkit, or ``root`` when it is one itself."""
    if any((root / name).is_dir() for name in (_IMAGES, _MASKS, "ImageSets")):
        return root
    years = sorted(path for path in root.glob("VOC20[0-9][0-9]") if path.is_dir())
    chosen = [path for path in years if path.name == _PREFERRED_YEAR] or years
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        listed = ", ".join(path.name for path in chosen)
        raise DataError(f"{root} holds {listed}", expected="one of them", remedy=f"name it: voc:{chosen[-1]}")
    inside = root / "VOCdevkit"
    raise DataError(
        f"{root} has no {_PREFERRED_YEAR}/",
        expected=f"VOCdevkit, with {_TREE}",
        remedy=f"name voc:{inside}" if inside.is_dir() else "unpack VOCtrainval_11-May-2012.tar and name its VOCdevkit",
    )


def _check_tree(year: Path) -> None:
    missing = [name for name in (_IMAGES, _MASKS, _LISTS) if not (year / name).is_dir()]
    if missing:
        raise DataError(
            f"{year} has no {'/ and no '.join(missing)}/",
            expected=_TREE,
            remedy="unpack VOCtrainval_11-May-2012.tar again (a download of VOC for detection alone lacks the masks)",
        )


def _files(year: Path, path: Path) -> SplitFiles:
    images = find_images(year / _IMAGES)
    folder = year / _MASKS
    return SplitFiles(images, find_masks(folder, images), read_split_file(path, _stem_of_line), folder)


def _augmented_files(year: Path, path: Path) -> SplitFiles:
    plain, folder = _files(year, path), year / _AUGMENTED_MASKS
    augmented = find_masks(folder, plain.images) if folder.is_dir() else {}
    return SplitFiles(plain.images, {**plain.masks, **augmented}, plain.stems, folder)


def _stem_of_line(line: str) -> str:
    """The image that a line names: ``2007_000032``, or image and mask as ``/JPEGImages/2007_000032.jpg /…/2007_000032.png``.

    Raises:
        DataError: when the two names of a line differ.
    """
    stems = sorted({stem_of(name) for name in line.split()})
    if len(stems) > 1:
        raise DataError(
            f"a line of a split list names {stems[0]!r} and {stems[1]!r}",
            expected="one stem, or an image and its mask",
            remedy=f"correct the line {line[:80]!r}",
        )
    return stems[0]
