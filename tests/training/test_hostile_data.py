"""Training on broken data: stopped before the first step by the doctor's one line, or warned and gone on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_folders import HOSTILE, Hostile, write_hostile_folder, write_sound_folder
from test_trainer import recipe, records

from dropclass_deploy.cli.app import run

ERRORS = [case for case in HOSTILE if case.severity == "error"]
WARNINGS = [case for case in HOSTILE if case.severity == "warning"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))


def train_on(data: Path, folder: Path) -> int:
    """Two steps by the command, and its exit code."""
    file = folder / "recipe.yaml"
    changes = {"train__steps": 2, "train__validate_every": 2, "train__checkpoint_every": 2}
    file.write_text(recipe(data=f"folder:{data}", **changes).to_yaml(), encoding="utf-8")
    return run(["train", str(file), "-o", str(folder / "run")])


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.name)
def test_an_error_of_the_doctor_stops_training_before_its_first_step(
    case: Hostile, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = train_on(write_hostile_folder(case, tmp_path / "data"), tmp_path)
    _, err = capfd.readouterr()
    said = [line for line in err.splitlines() if line.startswith("dropclass: ")]
    assert code == 2
    assert "Traceback" not in err
    assert len(said) == 1, err
    assert all(text in said[0] for text in case.says), said[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", WARNINGS, ids=lambda case: case.name)
def test_a_warning_of_the_doctor_is_said_and_training_goes_on(
    case: Hostile, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = train_on(write_hostile_folder(case, tmp_path / "data"), tmp_path)
    _, err = capfd.readouterr()
    said = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert code == 0, err
    assert len(said) == 1, err
    assert all(text in said[0] for text in case.says), said[0]
    assert [line["step"] for line in records(tmp_path / "run", "train")] == [1, 2]


def test_mended_data_train_into_the_folder_that_was_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train_on(write_hostile_folder(ERRORS[0], tmp_path / "data"), tmp_path) == 2
    write_sound_folder(tmp_path / "data")
    capfd.readouterr()
    assert train_on(tmp_path / "data", tmp_path) == 0, capfd.readouterr().err
