"""Counts, shares, order and wording of a report; splits that contain one another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hostile_folders import HOSTILE, NAMES, sound_mask, write_classes, write_hostile_folder, write_sound_folder
from PIL import Image

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.doctor import Report, examine, examine_datasets
from dropclass_deploy.data.registry import open_dataset, survey
from dropclass_deploy.data.statistics import count_classes, median_frequency_weights


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sound_folder(tmp_path / "data")


def examined(root: Path, *splits: str) -> Report:
    layout = survey(f"folder:{root}")
    assert layout is not None
    return examine(layout, splits or ("train", "val"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_counts_are_those_of_the_loader(root: Path, split: str) -> None:
    mask = sound_mask(2)
    mask[:9] = 255  # ignored: must count nowhere
    Image.fromarray(mask).save(root / "masks" / "02.png")
    ours = examined(root).statistics[split]
    theirs = count_classes(open_dataset(f"folder:{root}", split))  # reads the masks by another way
    for name in ("pixels", "images", "pixels_where_present"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert getattr(ours, name).dtype == np.int64
    assert ours.num_images == theirs.num_images
    np.testing.assert_array_equal(ours.by_image, theirs.by_image)
    assert ours.by_image.dtype == theirs.by_image.dtype == np.uint32


def test_several_raw_values_of_one_class_are_one_class(root: Path) -> None:
    table = "classes: [{name: ground, values: [0, 1]}, {name: thing, values: [2, 3]}]\n"
    (root / "classes.yaml").write_text(table)
    stats = examined(root).statistics["train"]
    np.testing.assert_array_equal(stats.pixels, count_classes(open_dataset(f"folder:{root}", "train")).pixels)
    assert stats.images.tolist() == [8, 8]


def test_shares_by_hand(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    # Two images of 4 pixels to train: class 0 has 5 of 7 labelled pixels, class 1 has 2, in one image only.
    masks = ([[0, 0], [1, 1]], [[0, 0], [0, 255]], [[0, 1], [1, 1]])
    for index, mask in enumerate(masks):
        Image.fromarray(np.full((2, 2, 3), index, np.uint8)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(np.array(mask, np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    (tmp_path / "classes.yaml").write_text("classes: [a, b]\n")
    report = examined(tmp_path)
    a, b = report.shares("train")
    assert (a.pixels, a.pixel_share, a.images, a.image_share) == (5, 5 / 7, 2, 1.0)
    assert (b.pixels, b.pixel_share, b.images, b.image_share) == (2, 2 / 7, 1, 0.5)
    assert (a.rare, b.rare) == (False, True)
    # Frequencies 5/7 and 2/4 (b's image has 4 labelled pixels), median 17/28: weights 17/20 and 17/14.
    assert [a.weight, b.weight] == pytest.approx([17 / 20, 17 / 14])
    assert report.shares("val")[1].rare  # rare by the training pixels, though frequent here
    weights = [row.weight for row in report.shares("train")]
    assert weights == pytest.approx(median_frequency_weights(report.statistics["train"]).tolist())


def test_the_first_error_is_raised_with_the_number_of_the_others(root: Path) -> None:
    (root / "images" / "01.png").write_bytes(b"no")
    (root / "masks" / "02.png").unlink()
    mask = sound_mask(4)
    mask[0] = 9
    Image.fromarray(mask).save(root / "masks" / "04.png")
    report = examined(root)
    assert [finding.kind for finding in report.errors] == ["image-without-mask", "image-unreadable", "values-unknown"]
    pattern = r"02\.png without a mask.*\(and 2 more problems: dropclass check-data folder:.*\)$"
    with pytest.raises(DataError, match=pattern):
        report.raise_for_errors()


def test_unknown_values_are_added_up_over_the_files(root: Path) -> None:
    for index, pixels in ((0, 3), (4, 5), (5, 1), (9, 2)):
        mask = sound_mask(index)
        mask[0, :pixels] = 40
        Image.fromarray(mask).save(root / "masks" / f"{index:02d}.png")
    (finding,) = examined(root).findings
    assert "40 (11 pixels in 4 masks: 00.png, 04.png, 05.png and 1 more)" in finding.message
    assert (finding.count, finding.split, len(finding.files)) == (4, None, 3)
    assert finding.files[0] == root / "masks" / "00.png"


def test_a_finding_in_one_split_names_it(root: Path) -> None:
    (root / "images" / "09.png").write_bytes(b"no")
    (finding,) = examined(root).findings
    assert (finding.split, finding.to_json()["split"]) == ("val", "val")


def test_many_unreadable_files_are_one_line(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.write_bytes(b"no")
    (finding,) = examined(root).findings
    assert "and 9 files more like it (01.png, 02.png, 03.png and 6 more)" in finding.message
    assert finding.count == 10


def test_greys_saved_as_rgb_get_their_own_remedy(root: Path) -> None:
    for path in (root / "masks").iterdir():
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        rgb.save(path)
    (finding,) = examined(root).findings
    assert finding.kind == "masks-are-colours"
    assert "their channels are equal" in finding.message
    assert "save one of the equal channels" in finding.message


def test_strange_colours_are_counted(root: Path) -> None:
    pixels = np.zeros((40, 56, 3), dtype=np.uint8)
    pixels[0, 0] = 1, 2, 3
    pixels[1] = 128, 64, 128  # road's
    Image.fromarray(pixels).save(root / "masks" / "00.png")
    (finding,) = examined(root).findings
    assert "1 mask holds colours" in finding.message
    assert "1 of them in the class table, 2 not, such as [0, 0, 0]" in finding.message


def test_one_value_on_a_grey_is_chance_when_there_are_many_classes(root: Path) -> None:
    # With 150 generated colours most values are the grey of some class: nothing may be concluded from one.
    names = ", ".join(f"c{index}" for index in range(150))
    (root / "classes.yaml").write_text(f"names: [{names}]\n")
    mask = sound_mask(0)
    mask[0, 0] = 200
    Image.fromarray(mask).save(root / "masks" / "00.png")
    assert "values-unknown" in [finding.kind for finding in examined(root).errors]


def test_copies_inside_a_split_are_a_note(root: Path) -> None:
    (root / "images" / "03.png").write_bytes((root / "images" / "02.png").read_bytes())
    (finding,) = examined(root).findings
    assert (finding.kind, finding.severity) == ("duplicates-inside-split", "note")
    assert "03.png = 02.png" in finding.message


def test_a_split_of_all_files_is_no_leak(root: Path) -> None:
    assert examined(root, "train", "val", "all").findings == ()


def test_a_split_that_cannot_be_listed(root: Path) -> None:
    write_classes(root, range(4), 'splits: {train: "00..07", val: "08..12"}')
    (finding,) = examined(root).findings
    assert (finding.kind, finding.split) == ("split-unlisted", "val")
    assert "there is no file '12'" in finding.message


def test_an_empty_split(tmp_path: Path) -> None:
    sound = write_sound_folder(tmp_path / "data")
    for kind in ("images", "masks"):
        (sound / kind).rename(tmp_path / kind)
        (sound / kind / "val").mkdir(parents=True)
        (tmp_path / kind).rename(sound / kind / "train")
    (finding,) = examined(sound).findings
    assert (finding.kind, finding.severity, finding.split) == ("split-empty", "error", "val")


def test_a_split_that_does_not_exist_is_the_callers_mistake(root: Path) -> None:
    with pytest.raises(DataError, match="has no split 'exam'"):
        examined(root, "exam")


def test_data_without_files_are_counted(tmp_path: Path) -> None:
    datasets = [open_dataset("synthetic:size=32x48,train=4,val=2", split) for split in ("train", "val")]
    report = examine_datasets(datasets)
    np.testing.assert_array_equal(report.statistics["train"].pixels, count_classes(datasets[0]).pixels)
    assert report.classes is not None
    assert len(report.classes.rare) == len(report.classes) // 2
    assert {finding.kind for finding in report.findings} <= {"class-absent"}


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_every_report_is_strict_json(case, tmp_path: Path) -> None:
    report = examined(write_hostile_folder(case, tmp_path / "data"))
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["findings"][0]["kind"] == case.kind
    assert content["classes"] in (list(NAMES), None)
