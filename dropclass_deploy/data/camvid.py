"""CamVid in the layout of the SegNet tutorial: ``train/ trainannot/ val/ valannot/ test/ testannot/``.

Labels are PNGs of ids: 0–10 are the eleven classes, 11 is void and counts nowhere.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.file_pairs import find_images, find_masks, located
from dropclass_deploy.data.label_map import LabelMap
from dropclass_deploy.data.layout import Layout, SplitFiles

CLASSES = ClassTable(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
VOID = 11
_ANNOTATIONS = "annot"


def survey_camvid(location: str) -> Layout:
    """The splits of a CamVid folder and the files of each.

    Raises:
        DataError: when the folder does not exist or holds no split.
    """
    root = located(location)
    if root is None or not root.is_dir():
        raise DataError(
            f"the folder {location!r} of camvid: does not exist", expected="a folder with train/ and trainannot/"
        )
    found = _splits(root)
    if not found:
        raise DataError(
            f"{root} has no CamVid split",
            expected="one of train, val, test, each NAME/ with its NAMEannot/",
            remedy="check the path",
        )
    labels = LabelMap(
        {index: index for index in range(len(CLASSES))},
        ignored=(VOID,),
        remedy="use the 11-class labels (0–10, 11 is void); describe any others with folder: and a classes.yaml",
    )
    splits = {name: partial(_files, root, name) for name in found}
    return Layout(f"camvid:{location}", root, splits, CLASSES, labels, title="CamVid")


def _files(root: Path, split: str) -> SplitFiles:
    folder = root / f"{split}{_ANNOTATIONS}"
    images = find_images(root / split)
    return SplitFiles.of_all(images, find_masks(folder, images), folder)


def _splits(root: Path) -> list[str]:
    names = (path.name.removesuffix(_ANNOTATIONS) for path in root.glob(f"?*{_ANNOTATIONS}") if path.is_dir())
    return sorted(name for name in names if (root / name).is_dir())
