"""Cityscapes as its authors distribute it: ``leftImg8bit/SPLIT/CITY/`` with ``gtFine/SPLIT/CITY/``.

Labels are the ``*_gtFine_labelIds.png``, whose 34 ids become the 19 classes of the benchmark; every other id counts
nowhere. Source of ids, names and colours: ``cityscapesscripts/helpers/labels.py`` of the authors' cityscapesScripts, and
Cordts et al., arXiv 1604.01685.

The split test has dummy labels only and is not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable, Colour
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.file_pairs import located
from dropclass_deploy.data.label_map import LabelMap
from dropclass_deploy.data.layout import Layout, SplitFiles

_TRAINED: Mapping[int, tuple[str, Colour]] = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
"""Label id → name and colour, in the order of the train ids 0 … 18."""
_LABEL_IDS = 34

CLASSES = ClassTable(
    names=tuple(name for name, _ in _TRAINED.values()), palette=tuple(colour for _, colour in _TRAINED.values())
)
LABELS = LabelMap(
    {raw: index for index, raw in enumerate(_TRAINED)},
    # The licence plate has the id −1, which an 8-bit file can only hold as 255.
    ignored=[raw for raw in (*range(_LABEL_IDS), IGNORE_INDEX) if raw not in _TRAINED],
    remedy="use the *_gtFine_labelIds.png of gtFine_trainvaltest.zip; describe other labels with folder: and a classes.yaml",
)

_IMAGES, _MASKS = "leftImg8bit", "gtFine"
_IMAGE_ENDING, _MASK_ENDING, _TRAIN_IDS_ENDING = (
    "_leftImg8bit.png",
    "_gtFine_labelIds.png",
    "_gtFine_labelTrainIds.png",
)
_SPLITS = ("train", "val")
_TREE = f"{_IMAGES}/SPLIT/CITY/*{_IMAGE_ENDING} with {_MASKS}/SPLIT/CITY/*{_MASK_ENDING}"


def survey_cityscapes(location: str) -> Layout:
    """The splits of a Cityscapes folder and the files of each.

    Raises:
        DataError: when the folder, its images, its fine labels or both splits are missing.
    """
    root = located(location)
    if root is None or not root.is_dir():
        raise DataError(f"the folder {location!r} of cityscapes: does not exist", expected=f"a folder with {_TREE}")
    _check_tree(root)
    found = [name for name in _SPLITS if any((root / kind / name).is_dir() for kind in (_IMAGES, _MASKS))]
    if not found:
        raise DataError(f"{root} has neither {_IMAGES}/train/ nor {_IMAGES}/val/", expected=_TREE)
    splits = {name: partial(_files, root, name) for name in found}
    return Layout(f"cityscapes:{location}", root, splits, CLASSES, LABELS, title="Cityscapes")


def _check_tree(root: Path) -> None:
    """Refuse a folder without images or fine labels, with what is most likely to have happened."""
    missing = [name for name in (_IMAGES, _MASKS) if not (root / name).is_dir()]
    if not missing:
        return
    coarse = (root / "gtCoarse").is_dir() and _MASKS in missing
    raise DataError(
        f"{root} has no {'/ and no '.join(missing)}/" + (", only gtCoarse/" if coarse else ""),
        expected=_TREE,
        remedy=_other_place(root) or "unpack there " + " and ".join(f"{name}_trainvaltest.zip" for name in missing),
    )


def _other_place(root: Path) -> str:
    """Where the tree seems to be when ``root`` lies beside or above it, as a remedy, else ""."""
    inside = next((path for path in (root, *root.parents[:2]) if path.name in (_IMAGES, _MASKS)), None)
    if inside is not None:
        return f"name the folder that holds {_IMAGES}/ and {_MASKS}/: cityscapes:{inside.parent}"
    below = sorted(path.parent for path in root.glob(f"*/{_IMAGES}") if path.is_dir())
    return f"name the folder that holds them: cityscapes:{below[0]}" if below else ""


def _files(root: Path, split: str) -> SplitFiles:
    folder = root / _MASKS / split
    images = _by_stem(root / _IMAGES / split, _IMAGE_ENDING)
    masks = _by_stem(folder, _MASK_ENDING)
    if not images:
        raise DataError(f"{root / _IMAGES / split} holds no CITY/*{_IMAGE_ENDING}", expected=_TREE)
    if not masks:
        train_ids = any(folder.glob(f"*/*{_TRAIN_IDS_ENDING}"))
        raise DataError(
            f"{folder} holds no CITY/*{_MASK_ENDING}" + (f", only *{_TRAIN_IDS_ENDING}" if train_ids else ""),
            expected="the label ids as distributed, which are mapped to the 19 classes here",
            remedy=f"unpack {_MASKS}_trainvaltest.zip there again",
        )
    return SplitFiles.of_all(images, masks, folder)


def _by_stem(folder: Path, ending: str) -> dict[str, Path]:
    """Files of every city that end so, by what stands before: "aachen_000000_000019"."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/*{ending}")):
        stem = path.name.removesuffix(ending)
        if path.name.startswith(".") or not path.is_file():
            continue
        if stem in found:
            raise DataError(
                f"{found[stem]} and {path} have one name", expected="one file a frame", remedy="remove one of them"
            )
        found[stem] = path
    return found
