"""What a survey tells before anything is demanded of the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import Layout, open_dataset, survey
from dropclass_deploy.data.dataset import FileDataset

Builder = Callable[..., Path]


def surveyed(root: Path) -> Layout:
    layout = survey(f"folder:{root}")
    assert layout is not None
    return layout


def test_a_synthetic_street_has_no_files() -> None:
    assert survey("synthetic:") is None


def test_a_folder_tells_its_splits_files_and_classes(make_folder: Builder) -> None:
    root = make_folder(["a", "b", "c", "d", "e"])
    layout = surveyed(root)
    assert (layout.spec, layout.place, layout.value_range) == (f"folder:{root}", root, None)
    assert layout.classes is not None
    assert layout.classes.names == ("ground", "thing")
    assert {name: list(layout.files(name).stems) for name in layout.splits} == {
        "train": ["a", "b", "c", "d"],
        "val": ["e"],
        "all": ["a", "b", "c", "d", "e"],
    }
    files = layout.files("val")
    assert files.images["e"] == root / "images/e.png"
    assert (files.masks["e"], files.mask_folder) == (root / "masks/e.png", root / "masks")
    assert [pair.mask.name for pair in files.pairs()] == ["e.png"]


def test_files_without_partner_are_listed_and_refused_only_as_pairs(make_folder: Builder) -> None:
    root = make_folder(["a", "b"])
    (root / "masks/a.png").unlink()
    (root / "images/b.png").unlink()
    files = surveyed(root).files("all")
    assert (list(files.stems), set(files.images), set(files.masks)) == (["a", "b"], {"a"}, {"b"})
    with pytest.raises(DataError, match=r"a\.png without a mask"):
        files.pairs()


def test_a_folder_without_classes_is_surveyed_but_not_opened(make_folder: Builder) -> None:
    root = make_folder(["a", "b"], classes=None)
    layout = surveyed(root)
    assert (layout.classes, layout.labels) == (None, None)
    assert len(layout.files("all").pairs()) == 2
    with pytest.raises(DataError, match=r"has no classes\.yaml; expected the class names"):
        open_dataset(f"folder:{root}", "all")


def test_a_range_in_the_yaml_reaches_layout_and_data(make_folder: Builder) -> None:
    root = make_folder(["a", "b"], "classes: [ground, {name: thing, value: 7}]\nvalue_range: [0, 4095]\n")
    assert surveyed(root).value_range == (0.0, 4095.0)
    assert open_dataset(f"folder:{root}", "all").value_range == (0.0, 4095.0)


def test_the_label_map_tells_what_it_knows(make_folder: Builder) -> None:
    dataset = open_dataset(f"folder:{make_folder(['a', 'b'])}", "all")
    assert isinstance(dataset, FileDataset)
    assert dataset.labels.known == {0: 0, 7: 1, 255: 255}


def test_an_unknown_split_is_refused(make_folder: Builder) -> None:
    with pytest.raises(DataError, match="has no split 'exam'; expected one of all, train, val"):
        surveyed(make_folder(["a", "b"])).files("exam")
