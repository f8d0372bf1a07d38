"""A data set of one's own: ``images/``, ``masks/`` and a ``classes.yaml``.

``folder:PATH`` takes a folder that holds all three, or the path of a YAML file whose ``root`` names the folder with the
images, so that data in a read-only place can be described from outside. Splits are looked for in this order:

1. ``splits`` in the YAML file;
2. ``splits/NAME.txt``, or beside ``images/`` ``train.txt``, ``val.txt``, ``test.txt`` …: one stem or file name a line;
3. sub-folders ``images/NAME`` with ``masks/NAME``, or ``NAME/images`` with ``NAME/masks``;
4. none: the files sorted by stem (digits as numbers), the first four fifths train, the last fifth val, and "all".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.classes_yaml import EXAMPLE, read_classes_yaml
from dropclass_deploy.data.file_pairs import find_images, find_masks, located
from dropclass_deploy.data.layout import Layout, SplitFiles
from dropclass_deploy.data.split_rules import SplitRules, default_splits, read_split_file, select_stems

CLASSES_FILES = ("classes.yaml", "classes.yml")
# Other text files lie in data folders too (README.txt, licence.txt): only these names are lists there.
_LISTS_IN_ROOT = ("train", "val", "valid", "validation", "test", "trainval", "all")


@dataclass(frozen=True)
class _Places:
    """The image and the mask folder of one split, or of all."""

    images: Path
    masks: Path

    def exist(self) -> bool:
        return self.images.is_dir() and self.masks.is_dir()

    def files(self, choose: Callable[[list[str]], list[str]]) -> SplitFiles:
        """Files of the stems that ``choose`` takes out of all, sorted."""
        images = find_images(self.images)
        every = SplitFiles.of_all(images, find_masks(self.masks, images), self.masks)
        return replace(every, stems=choose(list(every.stems)))


_Splits = Mapping[str, Callable[[], SplitFiles]]


def survey_folder(location: str) -> Layout:
    """The splits of a user's own data set and the files of each; classes and labels are None without a ``classes.yaml``.

    Raises:
        DataError: when the path or its images are missing, or ``classes.yaml`` does not fit.
    """
    path = located(location)
    if path is None:
        raise DataError(
            f"the path {location!r} of folder: does not exist",
            expected="a folder with images/, masks/ and classes.yaml, or a YAML file",
        )
    spec, file = f"folder:{location}", _classes_file(path)
    if file is None:
        return Layout(spec, path, _find_splits(path, None), classes=None, labels=None)
    config = read_classes_yaml(file)
    if not config.root.is_dir():
        raise DataError(f"the folder {config.root} does not exist", expected="a folder with images/ and masks/")
    splits = _find_splits(config.root, config.splits)
    return Layout(spec, config.root, splits, config.classes, config.labels, config.value_range)


def missing_classes(folder: Path) -> DataError:
    """The error for a folder whose masks nobody explained, with lines to start from."""
    return DataError(
        f"{folder} has no classes.yaml",
        expected="the class names, colours and raw mask values",
        remedy=f"let one be proposed (dropclass check-data folder:{folder} --fix-map), or write "
        f"{folder / CLASSES_FILES[0]} with the lines of your classes, for example: {EXAMPLE}",
    )


def _classes_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((path / name for name in CLASSES_FILES if (path / name).is_file()), None)


def _find_splits(root: Path, written: SplitRules | None) -> _Splits:
    whole = _Places(root / "images", root / "masks")
    if written is not None:
        return {name: _by_rules(whole, rules, f"splits.{name}") for name, rules in written.items()}
    lists = _list_files(root)
    if lists:
        return {name: _by_list(whole, path) for name, path in lists.items()}
    folders = _sub_folders(root)
    if folders:
        _refuse_loose_images(whole, folders)
        return {name: _every(places) for name, places in folders.items()}
    if not whole.exist():
        raise DataError(
            f"{root} has no images/ with masks/ beside it",
            expected="images/ and masks/ with files of equal stems",
            remedy="move the files there, or set root: in the YAML file",
        )
    return {name: _by_default(whole, name) for name in default_splits(())}


def _list_files(root: Path) -> dict[str, Path]:
    listed = {path.stem: path for path in root.glob("splits/*.txt") if not path.name.startswith(".")}
    return listed or {name: path for name in _LISTS_IN_ROOT if (path := root / f"{name}.txt").is_file()}


def _sub_folders(root: Path) -> dict[str, _Places]:
    below = {path.name: _Places(path, root / "masks" / path.name) for path in root.glob("images/*")}
    above = {path.name: _Places(path / "images", path / "masks") for path in root.glob("*")}
    found = {name: places for name, places in below.items() if places.exist()}
    return found or {name: places for name, places in above.items() if places.exist()}


def _refuse_loose_images(whole: _Places, folders: Mapping[str, _Places]) -> None:
    """Images beside folders of splits belong to none of them, and would be left out without a word."""
    loose = find_images(whole.images) if whole.exist() else {}
    if loose:
        first = next(iter(loose.values())).name
        raise DataError(
            f"{whole.images} holds the splits {', '.join(sorted(folders))} and {len(loose)} images beside them ({first})",
            expected="every image in the folder of its split, or no such folders",
            remedy="move them, or write splits: into classes.yaml",
        )


def _by_rules(places: _Places, rules: Sequence[str], where: str) -> Callable[[], SplitFiles]:
    return lambda: places.files(lambda stems: select_stems(rules, stems, where))


def _by_list(places: _Places, path: Path) -> Callable[[], SplitFiles]:
    return lambda: places.files(lambda _: read_split_file(path))


def _every(places: _Places) -> Callable[[], SplitFiles]:
    return lambda: places.files(lambda stems: stems)


def _by_default(places: _Places, name: str) -> Callable[[], SplitFiles]:
    return lambda: places.files(lambda stems: _default_stems(stems, name, places.images))


def _default_stems(stems: list[str], name: str, folder: Path) -> list[str]:
    chosen = default_splits(stems)[name]
    if stems and not chosen:
        only = json.dumps(stems[0], ensure_ascii=False)
        raise DataError(
            f"the split {name!r} of {folder} is empty: one image cannot be split into train and val",
            expected="at least two images, or splits of your own",
            remedy=f"add a line to classes.yaml, for example splits: {{train: [{only}], val: [{only}]}}",
        )
    return chosen
