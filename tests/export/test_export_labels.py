import json
from pathlib import Path

import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.export.labels import write_labels


def test_line_number_is_the_id(tmp_path: Path, table: ClassTable) -> None:
    write_labels(tmp_path, table)
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines() == list(table.names)


def rows_of_the_colour_map(folder: Path) -> list[list[str]]:
    """As driving stacks read it: one header line, "#" begins a comment, every comma parts, quotes are letters."""
    lines = (folder / "semseg_color_map.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [[part.strip() for part in line.partition("#")[0].split(",")] for line in lines]


def test_colour_map_has_id_name_and_colour(tmp_path: Path, table: ClassTable) -> None:
    write_labels(tmp_path, table)
    assert (
        (tmp_path / "semseg_color_map.csv").read_text(encoding="utf-8").startswith("id,name,r,g,b\n0,sky,70,130,180\n")
    )
    rows = rows_of_the_colour_map(tmp_path)
    assert rows[2] == ["2", "tree old", "0", "128", "0"]  # the class "tree, old"
    assert len(rows) == 4


def test_colour_map_survives_every_name(tmp_path: Path) -> None:
    names = ("a,b", "#1 in rank", 'the "other"', ",", "plain")
    write_labels(tmp_path, ClassTable(names=names, palette=((1, 2, 3),) * 5))
    rows = rows_of_the_colour_map(tmp_path)
    assert [row[1] for row in rows] == ["a b", "1 in rank", "the other", "class 3", "plain"]
    assert all([row[0], *row[2:]] == [str(index), "1", "2", "3"] for index, row in enumerate(rows))


def test_label_map_has_rare_flags_and_codes(tmp_path: Path, table: ClassTable) -> None:
    write_labels(tmp_path, table, {"road": "123"})
    content = json.loads((tmp_path / "label_map.json").read_text(encoding="utf-8"))
    assert content["ignore_index"] == 255
    assert [row["rare"] for row in content["classes"]] == [False, False, True, True]
    assert content["classes"][1] == {
        "id": 1,
        "name": "road",
        "colour": [128, 64, 128],
        "rare": False,
        "snomed_ct": "123",
    }
    assert "snomed_ct" not in content["classes"][0]


def test_code_of_an_unknown_class_is_refused(tmp_path: Path, table: ClassTable) -> None:
    with pytest.raises(UserError, match="a SNOMED code is given for 'liver'; expected one of sky"):
        write_labels(tmp_path, table, {"liver": "10200004"})


def test_name_of_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line break"):
        write_labels(tmp_path, ClassTable(names=("a\nb", "c")))
