"""The proposed class table: read back by the loader, it opens the data that it was made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hostile_folders import (
    COLOURS,
    HOSTILE,
    NAMES,
    each_mask,
    each_value,
    sound_mask,
    write_hostile_folder,
    write_sound_folder,
)
from PIL import Image

from dropclass_deploy.data.classes_yaml import ClassesFile, read_classes_yaml
from dropclass_deploy.data.doctor import Report, examine
from dropclass_deploy.data.doctor.fix_file import write_fix_map
from dropclass_deploy.data.registry import survey

CASES = {case.name: case for case in HOSTILE}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sound_folder(tmp_path / "data")


def examined(spec: str) -> Report:
    layout = survey(spec)
    assert layout is not None
    return examine(layout)


def proposed(root: Path, out: Path) -> Path:
    evidence = examined(f"folder:{root}").evidence
    assert evidence is not None
    return write_fix_map(evidence, out)


def table(path: Path) -> ClassesFile:
    return read_classes_yaml(path)


def errors_under(path: Path) -> list[str]:
    """Kinds of error that the data have under the proposed table."""
    return [finding.kind for finding in examined(f"folder:{path}").errors]


def test_a_sound_table_is_proposed_as_it_is(root: Path, tmp_path: Path) -> None:
    path = proposed(root, tmp_path / "out")
    assert (table(path).classes, table(path).root) == (table(root / "classes.yaml").classes, root)
    assert table(path).labels.known == table(root / "classes.yaml").labels.known
    assert errors_under(path) == []


def test_black_and_white_become_background_and_object(tmp_path: Path) -> None:
    root = write_hostile_folder(CASES["0/255"], tmp_path / "data")
    path = proposed(root, tmp_path / "out")
    assert table(path).classes.names == ("background", "object")
    assert table(path).labels.known == {0: 0, 255: 1}
    assert errors_under(path) == []


def test_a_table_of_two_keeps_its_names(tmp_path: Path) -> None:
    root = write_hostile_folder(CASES["0/255"], tmp_path / "data")
    (root / "classes.yaml").write_text("classes: [{name: skin, colour: [1, 2, 3]}, {name: mole, colour: [4, 5, 6]}]\n")
    path = proposed(root, tmp_path / "out")
    assert (table(path).classes.names, table(path).classes.palette) == (("skin", "mole"), ((1, 2, 3), (4, 5, 6)))
    assert errors_under(path) == []


@pytest.mark.parametrize("name", ["off by one", "zero unlabelled"])
def test_moved_ids_are_moved_back(name: str, tmp_path: Path) -> None:
    path = proposed(write_hostile_folder(CASES[name], tmp_path / "data"), tmp_path / "out")
    assert (table(path).classes.names, table(path).classes.palette) == (NAMES, COLOURS)
    assert table(path).labels.known == {0: 255, 1: 0, 2: 1, 3: 2, 4: 3, 255: 255}
    assert errors_under(path) == []


def test_moved_ids_with_a_255_that_the_table_does_not_ignore(root: Path, tmp_path: Path) -> None:
    (root / "classes.yaml").write_text((root / "classes.yaml").read_text() + "ignore: []\n")
    each_value(root, lambda mask: np.array([1, 2, 3, 4], dtype=np.uint8)[mask])
    mask = sound_mask(0) + np.uint8(1)
    mask[0] = 255
    Image.fromarray(mask).save(root / "masks" / "00.png")
    assert [finding.kind for finding in examined(f"folder:{root}").findings] == ["labels-off-by-one"]
    assert errors_under(proposed(root, tmp_path / "out")) == []


def test_an_unknown_value_becomes_a_class(tmp_path: Path) -> None:
    path = proposed(write_hostile_folder(CASES["unknown value"], tmp_path / "data"), tmp_path / "out")
    assert table(path).classes.names == (*NAMES, "class_77")
    assert table(path).classes.palette[:4] == COLOURS
    assert table(path).labels.known[77] == 4
    assert errors_under(path) == []


def test_strays_are_ignored(tmp_path: Path) -> None:
    root = write_hostile_folder(CASES["strays"], tmp_path / "data")
    path = proposed(root, tmp_path / "out")
    known = table(path).labels.known
    assert {known[value] for value in (0, 60, 128, 255)} == {0, 1, 2, 3}
    assert errors_under(path) == []
    assert "Strays of resizing" in path.read_text()


def test_a_folder_without_a_table_gets_one(tmp_path: Path) -> None:
    path = proposed(write_hostile_folder(CASES["no class table"], tmp_path / "data"), tmp_path / "out")
    assert table(path).classes.names == ("class_0", "class_1", "class_2", "class_3")
    assert errors_under(path) == []


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ((0, 1, 2, 255), {0: 0, 1: 1, 2: 2, 255: 255}),  # beside small ids 255 is "ignore", as is usual
        ((0, 60, 128, 255), {0: 0, 60: 1, 128: 2, 255: 3}),  # among values spread out it is one of them
        ((0, 0, 0, 9), {0: 0, 9: 1}),
    ],
)
def test_what_255_means_without_a_table(
    root: Path, tmp_path: Path, values: tuple[int, ...], known: dict[int, int]
) -> None:
    each_value(root, lambda mask: np.array(values, dtype=np.uint8)[mask])
    (root / "classes.yaml").unlink()
    path = proposed(root, tmp_path / "out")
    assert table(path).labels.known == known
    assert errors_under(path) == []


def test_a_single_value_still_makes_a_table(root: Path, tmp_path: Path) -> None:
    each_value(root, lambda mask: np.full_like(mask, 0))
    (root / "classes.yaml").unlink()
    assert len(table(proposed(root, tmp_path / "out")).classes) == 2


def test_palettes_of_the_masks_give_the_colours(root: Path, tmp_path: Path) -> None:
    def with_palette(image: Image.Image) -> Image.Image:
        image = image.convert("P")
        image.putdata(list(sound_mask(0).ravel().tolist()))
        image.putpalette([channel for colour in COLOURS for channel in colour])
        return image

    each_mask(root, with_palette)
    (root / "classes.yaml").unlink()
    assert table(proposed(root, tmp_path / "out")).classes.palette == COLOURS


def test_masks_of_colours_list_their_colours(tmp_path: Path) -> None:
    path = proposed(write_hostile_folder(CASES["palette as RGB"], tmp_path / "data"), tmp_path / "out")
    classes = table(path).classes
    assert dict(zip(classes.names, classes.palette, strict=True)) == dict(zip(NAMES, COLOURS, strict=True))
    assert "write the value of each colour's line into 8-bit PNGs" in path.read_text()


def test_more_values_than_a_table_holds(root: Path, tmp_path: Path) -> None:
    # 560 instance ids in blocks of 2×2: no pixel lies between its neighbours.
    ids = np.arange(560, dtype=np.uint16).reshape(20, 28).repeat(2, axis=0).repeat(2, axis=1)
    each_value(root, lambda _: ids)
    assert len(table(proposed(root, tmp_path / "out")).classes) == 255


def test_splits_range_and_hard_names_are_kept(root: Path, tmp_path: Path) -> None:
    rows = ", ".join(
        f"{{name: {json.dumps(name)}, value: {value}}}" for value, name in enumerate(("yes", "a: b", "ü\"'", "#"))
    )
    (root / "classes.yaml").write_text(
        f"classes: [{rows}]\nsplits: {{train: '00..05', val: ['06', '07']}}\nvalue_range: [0, 255]\n", encoding="utf-8"
    )
    path, before = proposed(root, tmp_path / "out"), table(root / "classes.yaml")
    after = table(path)
    assert (after.classes.names, after.splits, after.value_range) == (
        before.classes.names,
        before.splits,
        before.value_range,
    )


def test_no_file_is_ever_replaced(root: Path, tmp_path: Path) -> None:
    mine = (root / "classes.yaml").read_text()
    assert proposed(root, root).name == "classes-2.yaml"
    assert (root / "classes.yaml").read_text() == mine
    first = proposed(root, tmp_path / "out")
    assert proposed(root, tmp_path / "out") == first  # the same text needs no second file
    first.write_text(first.read_text() + "# my own remark\n")
    assert proposed(root, tmp_path / "out").name == "classes-2.yaml"
    assert first.read_text().endswith("# my own remark\n")


def test_a_format_with_a_table_of_its_own_says_how_to_use_it(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (tmp_path / "cam" / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "cam" / split / "a.png")
        Image.fromarray(np.full((9, 9), 30, np.uint8)).save(tmp_path / "cam" / f"{split}annot" / "a.png")
    report = examined(f"camvid:{tmp_path / 'cam'}")
    assert [finding.kind for finding in report.errors] == ["values-unknown"]
    assert report.evidence is not None
    text = write_fix_map(report.evidence, tmp_path / "out").read_text()
    assert "lay the files out as images/ and masks/" in text
    assert "class_30" in text
