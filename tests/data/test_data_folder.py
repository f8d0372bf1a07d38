from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_folders import write_sound_folder
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import Dataset, open_dataset

Builder = Callable[..., Path]
TEN = [f"{number:02d}" for number in range(1, 11)]


def keys(dataset: Dataset) -> list[str]:
    return [dataset.key(index) for index in range(len(dataset))]


def test_images_masks_and_paths_belong_together(make_folder: Builder) -> None:
    root = make_folder(TEN)
    dataset = open_dataset(f"folder:{root}", "all")
    assert (dataset.spec, dataset.split, dataset.classes.rare) == (f"folder:{root}", "all", ())
    for index, key in enumerate(TEN):
        assert dataset.key(index) == key
        assert (dataset.image(index) == index).all()
        assert dataset.mask(index).tolist() == [[1, 0, 0, 0, 0, 0], *[[0] * 6] * 3]
        assert dataset.mask(index).dtype == np.uint8
        assert dataset.image_path(index) == root / "images" / f"{key}.png"
        assert dataset.label_path(index) == root / "masks" / f"{key}.png"
        assert dataset.image_bytes(index) == (root / "images" / f"{key}.png").read_bytes()


def test_without_splits_the_last_fifth_is_val(make_folder: Builder) -> None:
    root = make_folder(TEN)
    assert keys(open_dataset(f"folder:{root}", "train")) == TEN[:8]
    assert keys(open_dataset(f"folder:{root}")) == TEN[8:]


def test_read_only_data_is_described_from_outside(make_folder: Builder, tmp_path: Path) -> None:
    make_folder(TEN, classes=None)
    outside = tmp_path / "configs"
    outside.mkdir()
    (outside / "mine.yaml").write_text("classes: [a, {name: b, value: 7}]\nroot: ..\n")
    assert keys(open_dataset(f"folder:{outside / 'mine.yaml'}", "all")) == TEN


def test_splits_of_the_yaml_come_before_all_others(make_folder: Builder) -> None:
    root = make_folder(
        TEN, 'classes: [a, {name: b, value: 7}]\nsplits: {train: "01..03", val: ["1*"], odd: ["01", "03"]}\n'
    )
    (root / "val.txt").write_text("05\n")
    assert keys(open_dataset(f"folder:{root}", "train")) == TEN[:3]
    assert keys(open_dataset(f"folder:{root}", "val")) == ["10"]
    assert keys(open_dataset(f"folder:{root}", "odd")) == ["01", "03"]


@pytest.mark.parametrize("place", ["splits/val.txt", "val.txt"])
def test_list_files_are_splits_in_their_own_order(place: str, make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).write_text("03.png\n02\n")
    assert keys(open_dataset(f"folder:{root}", "val")) == ["03", "02"]
    with pytest.raises(DataError, match=r"no split 'train'; expected one of val; .*--set splits.train=NAME"):
        open_dataset(f"folder:{root}", "train")


def test_a_text_file_that_is_no_list_is_no_split(make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / "README.txt").write_text("hello")
    assert len(open_dataset(f"folder:{root}", "val")) == 2


@pytest.mark.parametrize("layout", ["images/{}|masks/{}", "{}/images|{}/masks"])
def test_sub_folders_are_splits(layout: str, make_folder: Builder) -> None:
    for name, stems in (("train", TEN[:3]), ("test", TEN[3:])):
        images, masks = layout.format(name, name).split("|")
        root = make_folder(stems, images=images, masks=masks)
    assert keys(open_dataset(f"folder:{root}", "train")) == TEN[:3]
    with pytest.raises(DataError, match="no split 'val'; expected one of test, train"):
        open_dataset(f"folder:{root}", "val")


@pytest.mark.parametrize("ending", ["_mask.png", "_label.bmp", "_labels.tif", ".TIFF"])
def test_masks_may_carry_an_ending(ending: str, make_folder: Builder) -> None:
    root = make_folder(TEN, ending=ending)
    dataset = open_dataset(f"folder:{root}", "all")
    assert keys(dataset) == TEN
    assert dataset.mask(0)[0, 0] == 1


def test_hidden_files_and_other_kinds_are_skipped(make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / "images" / ".DS_Store").write_text("x")
    (root / "images" / "._01.png").write_text("x")
    (root / "images" / "notes.txt").write_text("x")
    assert keys(open_dataset(f"folder:{root}", "all")) == TEN


def test_missing_masks_are_listed_and_counted(make_folder: Builder) -> None:
    root = make_folder(TEN)
    for stem in TEN[:5]:
        (root / "masks" / f"{stem}.png").unlink()
    with pytest.raises(DataError, match=r"01\.png, 02\.png, 03\.png and 2 more without a mask in .*\(5 in all\)"):
        open_dataset(f"folder:{root}", "all")


def test_a_mask_without_an_image_is_refused(make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / "images" / "04.png").unlink()
    with pytest.raises(DataError, match=r"04\.png without an image of the same stem \(1 of 10\)"):
        open_dataset(f"folder:{root}", "all")


def test_a_list_that_names_a_missing_file_is_refused(make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / "val.txt").write_text("../../secret\n")
    with pytest.raises(DataError, match="secret without an image"):
        open_dataset(f"folder:{root}", "val")


def test_jpeg_masks_are_refused_with_the_reason(make_folder: Builder) -> None:
    root = make_folder(TEN, ending=".jpg")
    with pytest.raises(DataError, match=r"01\.jpg is a \.jpg file; .*JPEG and WebP change ids"):
        open_dataset(f"folder:{root}", "all")


def test_two_files_of_one_stem_are_refused(make_folder: Builder) -> None:
    root = make_folder(TEN)
    Image.new("RGB", (6, 4)).save(root / "images" / "01.jpg")
    with pytest.raises(DataError, match=r"01\.jpg and 01\.png in .* share a stem"):
        open_dataset(f"folder:{root}", "all")


def test_two_masks_of_one_image_are_refused(make_folder: Builder) -> None:
    root = make_folder(TEN)
    Image.new("L", (6, 4)).save(root / "masks" / "01_mask.png")
    with pytest.raises(DataError, match="two masks belong to the image '01'"):
        open_dataset(f"folder:{root}", "all")


def test_a_mask_of_another_size_names_both_files(make_folder: Builder) -> None:
    root = make_folder(TEN)
    Image.new("L", (6, 5)).save(root / "masks" / "01.png")
    with pytest.raises(
        DataError, match=r"images/01\.png is 6×4 and its mask .*masks/01\.png 6×5; expected equal sizes"
    ):
        open_dataset(f"folder:{root}", "all").mask(0)


def test_a_mask_full_of_200s_points_to_the_yaml(make_folder: Builder) -> None:
    root = make_folder(TEN)
    Image.new("L", (6, 4), 200).save(root / "masks" / "01.png")
    message = r"01\.png holds .*200 \(24 pixels\), of 24 .*values 0, 7, 255; add it to .*classes\.yaml"
    with pytest.raises(DataError, match=message):
        open_dataset(f"folder:{root}", "all").mask(0)


def test_a_missing_classes_file_shows_an_example_that_works(make_folder: Builder) -> None:
    root = make_folder(TEN, classes=None)
    with pytest.raises(DataError, match=r"has no classes\.yaml.*write .*classes\.yaml") as caught:
        open_dataset(f"folder:{root}")
    example = caught.value.remedy.partition("for example: ")[2]
    (root / "classes.yaml").write_text(example)
    assert open_dataset(f"folder:{root}").classes.names == ("background", "object")


def test_missing_folders_are_named(make_folder: Builder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the path '/no/such' of folder: does not exist"):
        open_dataset("folder:/no/such")
    (tmp_path / "classes.yaml").write_text("classes: [a, b]\n")
    with pytest.raises(DataError, match="has no images/ with masks/"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "classes.yaml").write_text("classes: [a, b]\nroot: nowhere\n")
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_dataset(f"folder:{tmp_path}")


def test_one_image_cannot_be_split_and_the_remedy_works(make_folder: Builder) -> None:
    root = make_folder(["the only"])
    with pytest.raises(
        DataError, match=r"split 'train' of .* is empty: one image .*; add a line .* splits: "
    ) as caught:
        open_dataset(f"folder:{root}", "train")
    line = str(caught.value).rpartition("for example ")[2]
    with (root / "classes.yaml").open("a") as file:
        file.write(line + "\n")
    assert [len(open_dataset(f"folder:{root}", split)) for split in ("train", "val")] == [1, 1]


def test_a_split_without_files_is_refused(make_folder: Builder) -> None:
    root = make_folder(["only"])
    (root / "images" / "only.png").unlink()
    (root / "masks" / "only.png").unlink()
    with pytest.raises(DataError, match=r"split 'train' of folder:.* is empty"):
        open_dataset(f"folder:{root}", "train")


def test_an_image_that_is_a_text_file_is_named(make_folder: Builder) -> None:
    root = make_folder(TEN)
    (root / "images" / "01.png").write_text("no image")
    dataset = open_dataset(f"folder:{root}", "all")
    with pytest.raises(DataError, match=r"01\.png cannot be read as an image"):
        dataset.image(0)
    with pytest.raises(DataError, match=r"01\.png cannot be read as an image"):
        dataset.mask(0)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    root = write_sound_folder(tmp_path)
    (root / "masks" / "02.png").unlink()
    (root / "masks" / "02.png").symlink_to("/mnt/a-disk-that-is-gone/02.png")
    with pytest.raises(
        DataError, match=r"02\.png is a link to /mnt/a-disk-that-is-gone/02\.png, which is not there; bring"
    ):
        open_dataset(f"folder:{root}", "train")


def test_images_beside_the_folders_of_splits_are_not_left_out(tmp_path: Path) -> None:
    root = write_sound_folder(tmp_path)
    for kind in ("images", "masks"):
        (root / kind / "train").mkdir()
        (root / kind / "00.png").rename(root / kind / "train" / "00.png")
    with pytest.raises(
        DataError, match=r"images holds the splits train and 9 images beside them \(01\.png\).*write splits"
    ):
        open_dataset(f"folder:{root}", "train")
