"""What is refused in one line, before any process starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evidence
import pytest
from evidence_cells import changed, checkout, head, plan_of, stored
from evidence_grid.checks import alone
from evidence_grid.store import Store


def test_a_mistake_is_one_line_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkout(tmp_path)
    assert evidence.main(["big", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "evidence: there is no grid 'big'; expected one of tiny\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--store"], "--store needs --cell"),
        (["tiny", "--check"], "--check needs --report"),
        (["--report", "--minutes", "3"], "--minutes needs a grid"),
        (["--report", "--device", "cpu"], "--device needs a grid or --cell"),
        (["tiny", "--report"], "exclude one another"),
        (["tiny", "--minutes", "0"], "0 is not above 0"),
        (["tiny", "--jobs", "0"], "0 is not 1 or more"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        evidence.main(given)
    assert message in capsys.readouterr().err


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """The one line."""
    assert evidence.main(["tiny", "--root", str(tmp_path), *given]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not list(tmp_path.rglob("*.log"))
    line, end = captured.err[:-1], captured.err[-1]
    assert end == "\n"
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--device", "tpu"], "--device tpu; expected auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "--device cuda:99: torch sees"),
        (["--runs", "{}/recipe.yaml"], "recipe.yaml is a file; expected a folder"),
        (["--runs", "{}/recipe.yaml/below"], "recipe.yaml is a file; expected a folder"),
        (["--data", "tiny=camvid"], "--data tiny=camvid; expected --data tiny=synthetic:"),
    ],
)
def test_resources_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    checkout(tmp_path)
    assert message in refused(tmp_path, capsys, *(one.format(tmp_path) for one in given))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"data": "camvid:nowhere"}, "nowhere does not exist; say where they lie: --data tiny=camvid:PATH"),
        ({"evaluate": [{"split": "val"}, {"split": "dawn"}]}, "'dawn'"),
        ({"watch": "dragon"}, "the grid tiny: there is no class 'dragon' to watch; expected one of "),
    ],
)
def test_data_that_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: dict[str, Any], message: str
) -> None:
    checkout(tmp_path, changed(**grid))
    assert message in refused(tmp_path, capsys)


def test_cells_of_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = checkout(tmp_path)
    cell = plan_of(root).cell("tiny/ce/0")
    facts = {"data_facts": {"splits": {"val": {"images": 7}}}}
    Store(root.results).write(cell, stored(cell, head(0.5, 0.4, 0.6, 0.4)) | facts)
    message = "tiny (all): the data of tiny/ce/0 and those at hand differ: images of val: 7 and 4; remove the stored"
    assert message in refused(tmp_path, capsys)


def test_a_second_fill_of_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = checkout(tmp_path)
    with alone(plan_of(root).grid("tiny"), Store(root.results)):
        assert "another fill of tiny is at work; wait for its end" in refused(tmp_path, capsys)
