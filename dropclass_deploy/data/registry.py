"""Data sets by name: ``FORMAT:PATH``."""

from __future__ import annotations

from collections.abc import Callable

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.camvid import open_camvid
from dropclass_deploy.data.dataset import Dataset
from dropclass_deploy.data.folder import open_folder
from dropclass_deploy.data.synthetic import open_synthetic

_OPENERS: dict[str, Callable[[str, str], Dataset]] = {
    "camvid": open_camvid,
    "folder": open_folder,
    "synthetic": open_synthetic,
}
FORMATS = tuple(_OPENERS)
"""Names that can stand before the colon."""


def open_dataset(spec: str, split: str = "val") -> Dataset:
    """Open one split of a data set.

    Args:
        spec: ``FORMAT:PATH``, for example ``camvid:data/camvid``, ``folder:my/data`` or ``synthetic:``.
        split: for example "train" or "val".

    Raises:
        DataError: when the format or split is unknown, or the files are not what the format asks for.
    """
    name, colon, location = spec.partition(":")
    if not colon or name not in _OPENERS:
        what = "has no colon" if not colon else f"names the unknown format {name!r}"
        raise DataError(
            f"the data {spec!r} {what}",
            expected="FORMAT:PATH with one of the formats " + ", ".join(FORMATS),
            remedy="for images/ and masks/ of your own write folder:PATH",
        )
    return _OPENERS[name](location, split)
