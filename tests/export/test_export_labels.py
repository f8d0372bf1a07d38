import csv
import json
from pathlib import Path

import pytest

from dropclass_deploy.core.classes import ClassTable
from dropclass_deploy.core.errors import UserError
from dropclass_deploy.export.labels import write_labels


def test_line_number_is_the_id(tmp_path: Path, table: ClassTable) -> None:
    write_labels(tmp_path, table)
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines() == list(table.names)


def test_colour_map_reads_back_as_csv(tmp_path: Path, table: ClassTable) -> None:
    write_labels(tmp_path, table)
    with (tmp_path / "semseg_color_map.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["name", "r", "g", "b"]
    assert rows[3] == ["tree, old", "0", "128", "0"]
    assert len(rows) == 5


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
