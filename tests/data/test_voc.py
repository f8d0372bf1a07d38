from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data import Dataset, open_dataset, survey

TRAIN, VAL, EXTRA = ["2007_000032", "2007_000039"], ["2007_000033"], ["2008_000002", "2008_000003"]
IDS = np.array([[*range(21), 255]], np.uint8)


def put_list(year: Path, name: str, lines: list[str]) -> None:
    path = year / "ImageSets" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def put_palette(path: Path, ids: np.ndarray) -> None:
    """A palette PNG whose colours are not its ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids).convert("P")
    image.putpalette([(index * 7 + 3) % 256 for index in range(768)])
    image.save(path)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    year = tmp_path / "VOCdevkit/VOC2012"
    (year / "JPEGImages").mkdir(parents=True)
    for stem in (*TRAIN, *VAL, *EXTRA):
        Image.new("RGB", (22, 1), (9, 9, 9)).save(year / "JPEGImages" / f"{stem}.jpg")
    for stem in (*TRAIN, *VAL):
        put_palette(year / "SegmentationClass" / f"{stem}.png", IDS)
        put_palette(year / "SegmentationObject" / f"{stem}.png", IDS)
    for name, stems in (("train", TRAIN), ("val", VAL), ("trainval", [*TRAIN, *VAL])):
        put_list(year, f"Segmentation/{name}", stems)
        put_list(year, f"Main/{name}", [f"{stem} -1" for stem in stems])
    return tmp_path / "VOCdevkit"


def keys(dataset: Dataset) -> list[str]:
    return [dataset.key(index) for index in range(len(dataset))]


def test_palette_indices_are_the_classes_and_255_is_ignored(devkit: Path) -> None:
    dataset = open_dataset(f"voc:{devkit}")
    assert dataset.mask(0).tolist() == IDS.tolist()
    assert dataset.image(0).shape == (1, 22, 3)
    assert dataset.label_path(0) == devkit / "VOC2012/SegmentationClass/2007_000033.png"


def test_names_and_colours_are_the_development_kits(devkit: Path) -> None:
    classes = open_dataset(f"voc:{devkit}").classes
    assert len(classes) == 21
    assert [classes.names[index] for index in (0, 1, 11, 15, 20)] == [
        "background",
        "aeroplane",
        "diningtable",
        "person",
        "tvmonitor",
    ]
    # The colours as published: three of the low bits, one of the second group (8 and 16 are 64), and the last.
    published = {0: (0, 0, 0), 1: (128, 0, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    published |= {16: (0, 64, 0), 20: (0, 64, 128)}
    assert {index: classes.palette[index] for index in published} == published


@pytest.mark.parametrize(("split", "stems"), [("train", TRAIN), ("val", VAL), ("trainval", [*TRAIN, *VAL])])
def test_lists_are_splits(split: str, stems: list[str], devkit: Path) -> None:
    assert keys(open_dataset(f"voc:{devkit}", split)) == stems


def test_the_path_may_be_the_devkit_the_year_or_an_only_other_year(devkit: Path) -> None:
    assert keys(open_dataset(f"voc:{devkit / 'VOC2012'}", "train")) == TRAIN
    (devkit / "VOC2007").mkdir()
    assert keys(open_dataset(f"voc:{devkit}", "train")) == TRAIN
    (devkit / "VOC2007").rmdir()
    (devkit / "VOC2012").rename(devkit / "VOC2009")
    assert keys(open_dataset(f"voc:{devkit}", "train")) == TRAIN


@pytest.mark.parametrize(
    "name",
    [
        "Segmentation/trainaug",
        "Segmentation/train_aug",
        "SegmentationAug/trainaug",
        "SegmentationAug/train_aug",
    ],
)
@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
def test_the_augmented_list_in_both_forms_and_every_place(name: str, line: str, devkit: Path) -> None:
    year = devkit / "VOC2012"
    put_list(year, name, [line.format(stem) for stem in (*TRAIN, *EXTRA)])
    for stem in (*EXTRA, TRAIN[0]):
        path = year / "SegmentationClassAug" / f"{stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((1, 22), 15, np.uint8)).save(path)
    dataset = open_dataset(f"voc:{devkit}", "trainaug")
    assert keys(dataset) == [*TRAIN, *EXTRA]
    # The augmented mask where there is one, the original where there is not; other splits keep the originals.
    assert [int(dataset.mask(index)[0, 0]) for index in range(4)] == [15, 0, 15, 15]
    assert open_dataset(f"voc:{devkit}", "train").mask(0)[0, 0] == 0


def test_without_a_list_there_is_no_augmented_split(devkit: Path) -> None:
    layout = survey(f"voc:{devkit}")
    assert layout is not None
    assert list(layout.splits) == ["train", "val", "trainval"]
    with pytest.raises(DataError, match="VOC2012 has no VOC split 'trainaug'; expected one of train, trainval, val"):
        open_dataset(f"voc:{devkit}", "trainaug")


def no_images(year: Path) -> None:
    shutil.rmtree(year / "JPEGImages")


def detection_only(year: Path) -> None:
    shutil.rmtree(year / "SegmentationClass")
    shutil.rmtree(year / "ImageSets/Segmentation")


def no_lists(year: Path) -> None:
    for path in year.glob("ImageSets/Segmentation/*"):
        path.unlink()


def empty_list(year: Path) -> None:
    put_list(year, "Segmentation/val", [])


def unlabelled(year: Path) -> None:
    put_list(year, "Segmentation/val", [*VAL, EXTRA[0]])


def unknown_stem(year: Path) -> None:
    put_list(year, "Segmentation/val", [*VAL, "2012_999999"])


def two_stems(year: Path) -> None:
    put_list(year, "Segmentation/val", ["/JPEGImages/a.jpg /SegmentationClass/b.png"])


def other_year_too(year: Path) -> None:
    year.rename(year.parent / "VOC2010")
    (year.parent / "VOC2007").mkdir()


def one_level_up(year: Path) -> None:
    inside = year.parent / "VOCdevkit"
    inside.mkdir()
    year.rename(inside / "VOC2012")


def something_else(year: Path) -> None:
    year.rename(year.parent / "photos")


def colours(year: Path) -> None:
    Image.new("RGB", (22, 1)).save(year / "SegmentationClass" / f"{VAL[0]}.png")


HOSTILE = {
    no_images: r"VOC2012 has no JPEGImages/; expected JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/",
    detection_only: r"has no SegmentationClass/ and no ImageSets/Segmentation/; .*for detection alone lacks the masks",
    no_lists: r"ImageSets/Segmentation holds no split list; expected train\.txt or val\.txt or trainval\.txt",
    empty_list: r"the split list .*val\.txt is empty",
    unlabelled: r"2008_000002\.jpg without a mask in .*SegmentationClass \(1 in all\)",
    unknown_stem: r"2012_999999 without an image of the same stem \(1 of 2\)",
    two_stems: r"a line of a split list names 'a' and 'b'; expected one stem, or an image and its mask",
    other_year_too: r"holds VOC2007, VOC2010; expected one of them; name it: voc:.*VOC2010$",
    one_level_up: r"has no VOC2012/; expected VOCdevkit, .*; name voc:.*VOCdevkit/VOCdevkit$",
    something_else: r"has no VOC2012/; .*unpack VOCtrainval_11-May-2012\.tar and name its VOCdevkit$",
    colours: r"2007_000033\.png is a RGB picture with 3 channels; .*single-channel",
}


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda damage: damage.__name__)
def test_hostile_trees_are_one_clear_line(damage: object, devkit: Path) -> None:
    assert callable(damage)
    damage(devkit / "VOC2012")
    with pytest.raises(DataError, match=HOSTILE[damage]) as caught:
        open_dataset(f"voc:{devkit}", "val").mask(0)
    assert "\n" not in str(caught.value)


def test_an_augmented_list_without_its_masks_names_their_folder(devkit: Path) -> None:
    put_list(devkit / "VOC2012", "Segmentation/trainaug", [*TRAIN, *EXTRA])
    with pytest.raises(DataError, match=r"2008_000002\.jpg, .* without a mask in .*SegmentationClassAug \(2 in all\)"):
        open_dataset(f"voc:{devkit}", "trainaug")


@pytest.mark.parametrize("location", ["", "/no/such/folder"])
def test_a_missing_folder_is_refused(location: str) -> None:
    with pytest.raises(DataError, match=r"of voc: does not exist; expected VOCdevkit"):
        open_dataset(f"voc:{location}")
