from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, ending in (("train", ".jpg"), ("val", ".png")):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        for stem in ("b_2", "b_10", "a"):
            Image.new("RGB", (4, 3), (9, 9, 9)).save(tmp_path / split / f"{stem}{ending}")
            ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
            Image.fromarray(ids).save(tmp_path / f"{split}annot" / f"{stem}.png")
    return tmp_path


def test_void_is_ignored_and_ids_stay(root: Path) -> None:
    mask = open_dataset(f"camvid:{root}").mask(0)
    assert mask.ravel().tolist() == [*range(11), 255]


@pytest.mark.parametrize("split", ["train", "val"])
def test_jpg_and_png_frames_are_read_in_order(split: str, root: Path) -> None:
    dataset = open_dataset(f"camvid:{root}", split)
    assert [dataset.key(index) for index in range(len(dataset))] == ["a", "b_2", "b_10"]
    assert dataset.image(0).shape == (3, 4, 3)


def test_classes_are_camvids(root: Path) -> None:
    classes = open_dataset(f"camvid:{root}").classes
    assert classes.names[3] == "road"
    assert classes.names[10] == "bicyclist"
    assert classes.palette[3] == (128, 64, 128)
    assert len(classes) == 11


def test_a_value_above_11_is_refused(root: Path) -> None:
    Image.new("L", (4, 3), 12).save(root / "valannot" / "a.png")
    with pytest.raises(DataError, match=r"a\.png holds .*12 \(12 pixels\).*raw values 0–11; use the 11-class labels"):
        open_dataset(f"camvid:{root}").mask(0)


def test_an_unknown_split_lists_those_found(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"no CamVid split 'test'; expected one of train, val; choose one of these: --split NAME$"
    ):
        open_dataset(f"camvid:{root}", "test")


@pytest.mark.parametrize("location", ["", "/no/such/folder"])
def test_a_missing_folder_is_refused(location: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(f"camvid:{location}")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one of train, val, test, each NAME/ with its NAMEannot/"):
        open_dataset(f"camvid:{tmp_path}")


def test_a_missing_label_is_refused(root: Path) -> None:
    (root / "valannot" / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png without a mask in .*valannot"):
        open_dataset(f"camvid:{root}")
