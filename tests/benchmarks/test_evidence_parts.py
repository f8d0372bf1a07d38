"""Parts of a run, and the data that cells were made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence_cells import checkout, head, plan_of, stored
from evidence_grid import parts
from evidence_grid.cell import can_resume
from evidence_grid.data_facts import differences, refuse_mixed, refuse_others
from evidence_grid.plan import Cell

from dropclass_deploy.core.errors import UserError

MADE: parts.Made = {
    "code": {"version": "1", "commit": "a", "dirty": False},
    "versions": {"torch": "2"},
    "device": "a GPU",
    "threads": 1,
}
FACTS: dict[str, Any] = {
    "splits": {"train": {"images": 8, "first_labels": [32, 32]}, "val": {"images": 4, "first_labels": [32, 32]}},
    "class_pixels": [1, 3],
    "class_images": [8, 8],
}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return plan_of(checkout(tmp_path)).cell("tiny/ce/0")


def test_parts_add_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    parts.begin(run, MADE, 0)
    with parts.clocked(run):
        pass
    with pytest.raises(KeyError, match="broken off"), parts.clocked(run):
        raise KeyError("broken off")
    parts.begin(run, MADE | {"threads": 2}, 30)
    with parts.clocked(run):
        found = parts.stored(run, 40)
    assert (found["wall_complete"], [part["steps"] for part in found["parts"]]) == (False, [30, 10])
    found = parts.stored(run, 40)
    assert found["wall_complete"] is True
    assert found["parts"][1] == MADE | {"threads": 2, "steps": 10, "wall_s": 0.0}


def test_a_part_that_was_killed_leaves_the_time_incomplete(tmp_path: Path) -> None:
    run = tmp_path / "run"
    parts.begin(run, MADE, 0)  # and no more
    parts.begin(run, MADE, 10)
    with parts.clocked(run):
        pass
    assert parts.stored(run, 40)["wall_complete"] is False


def test_the_time_of_a_run_from_before_there_were_parts_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    parts.wall_file(run).write_text(json.dumps({"wall_s": 12.5}))
    assert parts.same_maker(run, MADE)
    parts.begin(run, MADE, 10)
    with parts.clocked(run):
        pass
    found = parts.stored(run, 40)
    assert (found["wall_s"], found["wall_complete"]) == (12.5, None)
    assert [(part["code"], part["steps"]) for part in found["parts"]] == [(None, 10), (MADE["code"], 30)]


@pytest.mark.parametrize(
    ("other", "resumes"),
    [
        ({}, True),
        ({"threads": 2}, True),
        ({"device": "a CPU"}, False),
        ({"code": MADE["code"] | {"commit": "b"}}, False),
        ({"code": MADE["code"] | {"dirty": True}}, False),
    ],
)
def test_a_run_goes_on_with_its_own_code_and_device(
    tmp_path: Path, cell: Cell, other: dict[str, Any], resumes: bool
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(cell.recipe().to_yaml())
    parts.begin(run, MADE, 0)
    assert can_resume(run, cell.recipe(), MADE | other) is resumes


def made_of(cell: Cell, facts: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    made = stored(cell, head(0.5, 0.4, 0.6, 0.4)) | extra
    return made if facts is None else made | {"data_facts": facts}


def test_cells_of_different_data_are_refused(cell: Cell) -> None:
    other = FACTS | {"class_images": [8, 7]}
    old = made_of(cell)
    refuse_mixed([old, made_of(cell, FACTS), made_of(cell, FACTS)], "tiny (all)")
    message = r"tiny \(all\): the data of tiny/ce/0 and tiny/ce/0 differ: class_images: \[8, 8\] and \[8, 7\]; remove"
    with pytest.raises(UserError, match=message):
        refuse_mixed([old, made_of(cell, FACTS), made_of(cell, other)], "tiny (all)")
    with pytest.raises(UserError, match=r"frequency: \[0.25, 0.75\] and \[0.2501, 0.7499\]"):
        refuse_mixed([old, made_of(cell, FACTS, frequency=[0.2501, 0.7499])], "tiny (all)")


def test_frequencies_are_the_same_to_a_millionth(cell: Cell) -> None:
    assert differences(made_of(cell), made_of(cell, frequency=[0.25 + 1e-7, 0.75])) == []
    assert differences(made_of(cell), made_of(cell, frequency=[0.25 + 1e-6, 0.75])) != []


def test_a_split_of_one_of_them_says_nothing(cell: Cell) -> None:
    more = FACTS | {"splits": FACTS["splits"] | {"unbiased": {"images": 4, "first_labels": [32, 32]}}}
    assert differences(made_of(cell, FACTS), made_of(cell, more)) == []


def test_data_at_hand_that_are_not_the_stored_ones_are_refused(cell: Cell) -> None:
    at_hand = {"splits": FACTS["splits"] | {"val": {"images": 4, "first_labels": [64, 64]}}}
    refuse_others([made_of(cell)], at_hand, "tiny")
    with pytest.raises(UserError, match=r"those at hand differ: first_labels of val: \[32, 32\] and \[64, 64\]"):
        refuse_others([made_of(cell, FACTS)], at_hand, "tiny")
