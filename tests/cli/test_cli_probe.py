"""``dropclass probe``: its table and JSON, and wrong words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_probe_writes_its_figures_and_prints_them(dropclass, tmp_path: Path) -> None:
    folder = tmp_path / "probe"
    result = dropclass("probe", "-o", str(folder), "--epochs", "1", "--json")
    assert result.code == 0
    printed, stored = json.loads(result.out), json.loads((folder / "probe.json").read_text())
    assert printed.pop("output") == str(folder)
    assert printed == {name: stored[name] for name in ("biased", "tuned", "scratch")}
    assert stored["options"]["link"] == {"classes": [0, 1, 2, 3, 4], "strength": 1.0}
    assert (folder / "cam_0.png").is_file()
    again = dropclass("probe", "-o", str(folder), "--epochs", "1")
    assert again.code == 2
    assert "exists" in again.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--classes", "0,two"], "--classes 0,two; expected ids separated by commas"),
        (["--first", "digits"], "digits"),
        (["--first", "mnist:/nowhere"], "/nowhere"),
        (["--strength", "1.5"], "--strength"),
        (["--classes", "0,11"], "11"),
    ],
)
def test_wrong_words(dropclass, tmp_path: Path, words: list[str], problem: str) -> None:
    result = dropclass("probe", "-o", str(tmp_path / "probe"), *words)
    assert result.code == 2
    assert problem in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "probe").exists()
