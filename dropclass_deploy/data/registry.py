"""Data sets by name: ``FORMAT:PATH``."""

from __future__ import annotations

from collections.abc import Callable

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.camvid import survey_camvid
from dropclass_deploy.data.cityscapes import survey_cityscapes
from dropclass_deploy.data.dataset import Dataset, FileDataset
from dropclass_deploy.data.folder import missing_classes, survey_folder
from dropclass_deploy.data.layout import Layout
from dropclass_deploy.data.synthetic import open_synthetic
from dropclass_deploy.data.voc import survey_voc

_SURVEYORS: dict[str, Callable[[str], Layout]] = {
    "camvid": survey_camvid,
    "cityscapes": survey_cityscapes,
    "voc": survey_voc,
    "folder": survey_folder,
}
_SYNTHETIC = "synthetic"
FORMATS = (*_SURVEYORS, _SYNTHETIC)
"""Names that can stand before the colon."""


def open_dataset(spec: str, split: str = "val") -> Dataset:
    """Open one split of a data set.

    Args:
        spec: ``FORMAT:PATH``, for example ``camvid:data/camvid``, ``folder:my/data`` or ``synthetic:``.
        split: for example "train" or "val".

    Raises:
        DataError: when the format or split is unknown, or the files are not what the format asks for.
    """
    layout = survey(spec)
    if layout is None:
        return open_synthetic(_parts(spec)[1], split)
    if layout.classes is None or layout.labels is None:
        raise missing_classes(layout.place)
    pairs = layout.files(split).pairs()
    return FileDataset(spec, split, layout.classes, layout.labels, pairs, layout.value_range)


def survey(spec: str) -> Layout | None:
    """The splits and files of a data set as they lie on the disk; None for ``synthetic:``, which has no files.

    Raises:
        DataError: when the format is unknown, or nothing that it asks for is there.
    """
    name, location = _parts(spec)
    return None if name == _SYNTHETIC else _SURVEYORS[name](location)


def _parts(spec: str) -> tuple[str, str]:
    """Format and location of ``FORMAT:PATH``."""
    name, colon, location = spec.partition(":")
    if not colon or name not in FORMATS:
        what = "has no colon" if not colon else f"names the unknown format {name!r}"
        raise DataError(
            f"the data {spec!r} {what}",
            expected="FORMAT:PATH with one of the formats " + ", ".join(FORMATS),
            remedy="for images/ and masks/ of your own write folder:PATH",
        )
    return name, location
