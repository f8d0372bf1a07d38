"""The mask doctor's command: what it prints and writes, and with which exit code it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dropclass_deploy.data.classes_yaml import read_classes_yaml
from dropclass_deploy.data.registry import open_dataset

TABLE = "classes: [{name: ground, value: 0}, {name: thing, value: 7}]\n"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five images, four to train; thing (7) has 6 of 96 pixels in each mask."""
    for index in range(5):
        mask = np.zeros((8, 12), dtype=np.uint8)
        mask[2:4, 3:6] = 7
        for kind, array in (("images", np.full((8, 12, 3), 40 * index, np.uint8)), ("masks", mask)):
            path = tmp_path / "data" / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    (tmp_path / "data" / "classes.yaml").write_text(TABLE)
    return tmp_path / "data"


def write_mask(data: Path, index: int, value: int, pixels: int = 4) -> None:
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:4, 3:6] = 7
    mask[7, :pixels] = value
    Image.fromarray(mask).save(data / "masks" / f"{index}.png")


def test_help_has_an_example(dropclass) -> None:
    assert "Example: dropclass check-data" in " ".join(dropclass("check-data", "--help").out.split())


def test_sound_data_print_shares_and_write_report_and_chart(dropclass, data: Path) -> None:
    result = dropclass("check-data", f"folder:{data}")
    assert result.code == 0, result.err
    row = next(line for line in result.out.splitlines() if "thing (rare)" in line)
    # 6 of 96 pixels, in every image; median frequency: (6.25 % + 93.75 %) / 2 / 6.25 % = 8
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        "thing (rare)",
        "6.25",
        "100.00",
        "6.25",
        "100.00",
        "8.000",
    ]
    assert "rare classes: thing" in result.out
    assert "0 errors, 0 warnings, 0 notes; report.json and classes.png in data-check" in result.out
    with Image.open("data-check/classes.png") as chart:
        assert chart.format == "PNG"
    stored = json.loads(Path("data-check/report.json").read_text())
    assert stored["splits"]["train"]["classes"][1]["pixels"] == 24


def test_the_second_run_replaces_its_own_report(dropclass, data: Path) -> None:
    assert dropclass("check-data", f"folder:{data}").code == 0
    write_mask(data, 0, 9)
    assert dropclass("check-data", f"folder:{data}").code == 2
    assert json.loads(Path("data-check/report.json").read_text())["findings"][0]["kind"] == "values-unknown"


@pytest.mark.parametrize("name", ["report.json", "classes.png"])
def test_a_foreign_file_is_not_replaced(dropclass, data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"mine": 1}')
    assert "no report of ours" in dropclass("check-data", f"folder:{data}", "-o", "out").mistake()
    assert (tmp_path / "out" / name).read_text() == '{"mine": 1}'
    (tmp_path / "file").write_text("")
    assert "is a file" in dropclass("check-data", f"folder:{data}", "-o", "file").mistake()


def test_errors_end_with_one_line_and_the_number_of_the_others(dropclass, data: Path) -> None:
    write_mask(data, 1, 9)
    (data / "images" / "2.png").write_bytes(b"no")
    result = dropclass("check-data", f"folder:{data}")
    line = result.mistake()
    assert "2.png cannot be read" in line
    assert f"(and 1 more problem: dropclass check-data folder:{data})" in line
    assert "error: 1 mask of 5 holds values that belong to no class: 9 (4 pixels in 1 mask: 1.png)" in result.out


def test_json_is_one_object_also_with_errors(dropclass, data: Path) -> None:
    write_mask(data, 1, 9)
    result = dropclass("check-data", f"folder:{data}", "--json", "-o", "out")
    assert result.code == 2
    assert [finding["kind"] for finding in result.json["findings"]] == ["values-unknown"]
    assert (result.json["output"], result.json["fix_map"]) == ("out", None)


def test_strict_makes_warnings_count(dropclass, data: Path) -> None:
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(data / "masks" / "4.png")
    lenient = dropclass("check-data", f"folder:{data}")
    assert lenient.code == 0
    assert "warning: thing never occurs in the 1 mask of val" in lenient.out
    assert "thing never occurs" in dropclass("check-data", f"folder:{data}", "--strict").mistake()


def test_only_the_splits_asked_for(dropclass, data: Path) -> None:
    (data / "images" / "4.png").write_bytes(b"no")
    assert dropclass("check-data", f"folder:{data}", "--split", "train").code == 0
    assert "4.png" in dropclass("check-data", f"folder:{data}", "--split", "train", "--split", "val").mistake()
    assert "has no split 'exam'" in dropclass("check-data", f"folder:{data}", "--split", "exam").mistake()


def test_a_folder_without_a_table_starts_with_the_proposal(dropclass, data: Path) -> None:
    (data / "classes.yaml").unlink()
    result = dropclass("check-data", f"folder:{data}", "--fix-map")
    assert "has no classes.yaml" in result.mistake()
    assert "proposed class table: data-check/classes.yaml" in result.err
    assert read_classes_yaml(Path("data-check/classes.yaml")).labels.known == {0: 0, 7: 1}
    again = dropclass("check-data", "folder:data-check/classes.yaml")
    assert again.code == 0, again.err
    assert len(open_dataset("folder:data-check/classes.yaml", "train")) == 4


def test_data_without_files(dropclass) -> None:
    spec = "synthetic:size=32x48,train=3,val=2,unbiased=2"
    result = dropclass("check-data", spec, "--fix-map", "--json")
    assert set(result.json["splits"]) == {"train", "val", "unbiased"}
    assert "has no files" in result.err


def test_no_cache_reads_again(dropclass, data: Path, tmp_path: Path) -> None:
    assert "reading masks" in dropclass("check-data", f"folder:{data}").err
    assert "reading masks" not in dropclass("check-data", f"folder:{data}").err
    assert "reading masks" in dropclass("check-data", f"folder:{data}", "--no-cache").err
    assert "reading masks" not in dropclass("check-data", f"folder:{data}").err  # it kept what it read


def test_without_matplotlib_all_but_the_chart_is_there(dropclass, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = dropclass("check-data", f"folder:{data}")
    assert result.code == 0
    assert "no chart: the package 'matplotlib' is not installed" in result.err
    assert "0 errors, 0 warnings, 0 notes; report.json in data-check" in result.out


@pytest.mark.parametrize(
    ("spec", "message"),
    [("folder:gone", "'gone' of folder: does not exist"), ("tiff:x", "unknown format 'tiff'"), ("camvid", "no colon")],
)
def test_what_is_not_there_is_a_mistake(dropclass, tmp_path: Path, spec: str, message: str) -> None:
    assert message in dropclass("check-data", spec).mistake()
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_needed(data: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from dropclass_deploy.cli.app import run; sys.exit(run(['check-data', 'folder:{data}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
