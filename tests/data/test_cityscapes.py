from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import open_dataset, survey

FRAMES = {"train": ["aachen/aachen_000000_000019", "ulm/ulm_000003_000019"], "val": ["lindau/lindau_000001_000019"]}


def put(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The official tree; each mask holds the label ids 0 … 33 and, for the licence plate, 255."""
    root = tmp_path / "cityscapes"
    ids = np.array([*range(34), 255, 255], np.uint8).reshape(4, 9)
    for split, frames in {**FRAMES, "test": ["berlin/berlin_000000_000019"]}.items():
        for frame in frames:
            put(root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png", np.full((4, 9, 3), 7, np.uint8))
            mask = root / "gtFine" / split / f"{frame}_gtFine"
            put(Path(f"{mask}_labelIds.png"), ids if split != "test" else np.zeros_like(ids))
            put(Path(f"{mask}_instanceIds.png"), ids.astype(np.uint16) * 1000)
            put(Path(f"{mask}_color.png"), np.zeros((4, 9, 4), np.uint8))
            put(Path(f"{mask}_labelTrainIds.png"), np.zeros((4, 9), np.uint8))
            Path(f"{mask}_polygons.json").write_text("{}")
    return root


def test_label_ids_become_the_19_classes(root: Path) -> None:
    mask = open_dataset(f"cityscapes:{root}", "train").mask(0)
    # Label id → train id, from the table of the benchmark; every other id is ignored.
    expected = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
    expected |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert mask.ravel().tolist() == [expected.get(raw, 255) for raw in [*range(34), 255, 255]]


def test_names_and_colours_are_the_benchmarks(root: Path) -> None:
    classes = open_dataset(f"cityscapes:{root}").classes
    assert len(classes) == 19
    assert [classes.names[index] for index in (0, 6, 11, 12, 18)] == [
        "road",
        "traffic light",
        "person",
        "rider",
        "bicycle",
    ]
    assert classes.palette[0] == (128, 64, 128)
    assert classes.palette[10] == (70, 130, 180)
    assert classes.palette[18] == (119, 11, 32)
    assert len(set(classes.palette)) == 19


def test_stems_are_those_of_the_frames(root: Path) -> None:
    train = open_dataset(f"cityscapes:{root}", "train")
    assert [train.key(index) for index in range(len(train))] == ["aachen_000000_000019", "ulm_000003_000019"]
    assert open_dataset(f"cityscapes:{root}", "val").key(0) == "lindau_000001_000019"
    assert train.image_path(1) == root / "leftImg8bit/train/ulm/ulm_000003_000019_leftImg8bit.png"
    assert train.label_path(1) == root / "gtFine/train/ulm/ulm_000003_000019_gtFine_labelIds.png"
    assert train.image(0).shape == (4, 9, 3)


def test_the_dummy_labels_of_test_are_not_offered(root: Path) -> None:
    layout = survey(f"cityscapes:{root}")
    assert layout is not None
    assert list(layout.splits) == ["train", "val"]
    with pytest.raises(DataError, match="no Cityscapes split 'test'; expected one of train, val; choose"):
        open_dataset(f"cityscapes:{root}", "test")


def test_a_value_that_is_no_label_id_is_refused(root: Path) -> None:
    put(root / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png", np.full((4, 9), 34, np.uint8))
    with pytest.raises(DataError, match=r"34 \(36 pixels\).*raw values 0–33, 255; use the \*_gtFine_labelIds"):
        open_dataset(f"cityscapes:{root}").mask(0)


@pytest.mark.parametrize("location", ["", "/no/such/folder"])
def test_a_missing_folder_is_refused(location: str) -> None:
    with pytest.raises(DataError, match=r"of cityscapes: does not exist; expected a folder with leftImg8bit/SPLIT"):
        open_dataset(f"cityscapes:{location}")


def only_labels(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit")


def only_images(root: Path) -> None:
    shutil.rmtree(root / "gtFine")


def coarse(root: Path) -> None:
    (root / "gtFine").rename(root / "gtCoarse")


def neither(root: Path) -> None:
    only_labels(root)
    only_images(root)


def only_train_ids(root: Path) -> None:
    for path in root.glob("gtFine/val/*/*_labelIds.png"):
        path.unlink()


def no_mask_files(root: Path) -> None:
    shutil.rmtree(root / "gtFine/val")


def no_images_of_val(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit/val")


def no_cities(root: Path) -> None:
    shutil.move(root / "leftImg8bit/val/lindau/lindau_000001_000019_leftImg8bit.png", root / "leftImg8bit/val")


def nothing_but_test(root: Path) -> None:
    for split in FRAMES:
        shutil.rmtree(root / "leftImg8bit" / split)
        shutil.rmtree(root / "gtFine" / split)


def one_mask_gone(root: Path) -> None:
    put(root / "leftImg8bit/val/ulm/ulm_000009_000019_leftImg8bit.png", np.zeros((4, 9, 3), np.uint8))


def one_image_gone(root: Path) -> None:
    put(root / "gtFine/val/ulm/ulm_000009_000019_gtFine_labelIds.png", np.zeros((4, 9), np.uint8))


def one_name_twice(root: Path) -> None:
    folder = root / "leftImg8bit/val"
    shutil.copytree(folder / "lindau", folder / "copy")


HOSTILE = {
    only_labels: r"cityscapes has no leftImg8bit/; expected .*; unpack there leftImg8bit_trainvaltest\.zip$",
    only_images: r"cityscapes has no gtFine/; expected .*; unpack there gtFine_trainvaltest\.zip$",
    coarse: r"has no gtFine/, only gtCoarse/; .*unpack there gtFine_trainvaltest\.zip$",
    neither: r"has no leftImg8bit/ and no gtFine/; .*leftImg8bit_trainvaltest\.zip and gtFine_trainvaltest\.zip$",
    only_train_ids: r"holds no CITY/\*_gtFine_labelIds\.png, only \*_gtFine_labelTrainIds\.png; .*unpack",
    no_mask_files: r"gtFine/val holds no CITY/\*_gtFine_labelIds\.png; .*unpack gtFine_trainvaltest\.zip there again",
    no_images_of_val: r"leftImg8bit/val holds no CITY/\*_leftImg8bit\.png; expected leftImg8bit/SPLIT/CITY",
    no_cities: r"leftImg8bit/val holds no CITY/\*_leftImg8bit\.png",
    nothing_but_test: r"has neither leftImg8bit/train/ nor leftImg8bit/val/",
    one_mask_gone: r"ulm_000009_000019_leftImg8bit\.png without a mask in .*gtFine/val \(1 in all\)",
    one_image_gone: r"ulm_000009_000019_gtFine_labelIds\.png without an image of the same stem \(1 of 2\)",
    one_name_twice: r"copy/lindau_000001_000019_leftImg8bit\.png and .* have one name; expected one file a frame",
}


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda damage: damage.__name__)
def test_hostile_trees_are_one_clear_line(damage: object, root: Path) -> None:
    assert callable(damage)
    damage(root)
    with pytest.raises(DataError, match=HOSTILE[damage]) as caught:
        open_dataset(f"cityscapes:{root}", "val")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", ["leftImg8bit", "gtFine/train", ".."])
def test_a_path_beside_the_tree_is_told_the_right_one(inside: str, root: Path) -> None:
    with pytest.raises(DataError, match=r"name the folder that holds .*: cityscapes:.*/cityscapes$"):
        open_dataset(f"cityscapes:{root / inside}")
