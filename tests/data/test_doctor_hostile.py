"""Each broken data set gets exactly its one clear line, from the library and from the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hostile_folders import HOSTILE, Hostile, write_hostile_folder, write_sound_folder

from dropclass_deploy.cli.app import run
from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.doctor import Report, examine
from dropclass_deploy.data.registry import survey


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPCLASS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=HOSTILE, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Hostile:
    return request.param


def examined(root: Path) -> Report:
    layout = survey(f"folder:{root}")
    assert layout is not None
    return examine(layout)


def test_a_sound_folder_has_no_finding(tmp_path: Path) -> None:
    report = examined(write_sound_folder(tmp_path / "data"))
    assert report.findings == ()
    report.raise_for_errors(strict=True)


def test_one_finding_of_its_kind_which_stops_training_when_it_is_an_error(case: Hostile, tmp_path: Path) -> None:
    report = examined(write_hostile_folder(case, tmp_path / "data"))
    assert [(finding.kind, finding.severity) for finding in report.findings] == [(case.kind, case.severity)]
    message = report.findings[0].message
    assert "\n" not in message
    assert all(text in message for text in case.says), message
    with pytest.raises(DataError, match=re.escape(message)):
        report.raise_for_errors(strict=case.severity == "warning")
    if case.severity == "warning":
        report.raise_for_errors()


def test_the_command_ends_with_the_one_line(case: Hostile, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = write_hostile_folder(case, tmp_path / "data")
    code = run(["check-data", f"folder:{root}", "-o", str(tmp_path / "out")])
    out, err = capfd.readouterr()
    mistakes = [line for line in err.splitlines() if line.startswith("dropclass: ")]
    assert "Traceback" not in err
    assert [line for line in out.splitlines() if line.startswith(("error", "warning"))] != []
    if case.severity == "warning":
        assert (code, mistakes) == (0, [])
    else:
        assert code == 2
        assert mistakes == err.splitlines()[-1:]
        assert all(text in mistakes[0] for text in case.says)
