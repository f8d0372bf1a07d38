"""One cell by itself: repeated and compared, stored on demand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evidence
import pytest
import torch
from evidence_cells import RECIPE, changed, checkout, head, plan_of, stored
from evidence_grid.cell import command_of, run_cell
from evidence_grid.job import job_of
from evidence_grid.store import Store

from dropclass_deploy.core.errors import RunError, TrainingInterruptedError
from dropclass_deploy.core.progress import Silent


def test_a_repeated_cell_is_compared_and_stored_only_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout(tmp_path)
    store, cell = Store(root.results), plan_of(root).cell("tiny/ce/1")
    old, new = (stored(cell, head(value, 0.4, 0.6, 0.4), head(value, 0.4, None, 0.4)) for value in (0.5, 0.525))
    new |= {"device": "another", "frequency": [0.5, 0.5]}
    store.write(cell, old)
    monkeypatch.setattr("evidence_grid.actions.run_cell", lambda *arguments: new)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    given = ["--cell", "tiny/ce/1", "--root", str(tmp_path), "--device", "cpu"]
    assert evidence.main(given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "device: none such stored, another new",
        "the data differ, stored and new: frequency: [0.25, 0.75] and [0.5, 0.5]",
    ]
    assert lines[2].split() == ["stored", "new", "difference"]
    assert lines[3].split() == ["val,", "plain:", "mIoU", "50.00", "52.50", "+2.50"]
    assert lines[9].split() == ["val,", "folded:", "sky", "–", "–", "–"]
    assert store.read(cell) == old
    assert evidence.main([*given, "--store"]) == 0
    assert store.read(cell) == new
    assert list((root.runs / "tiny/ce").iterdir()) == []


def test_an_interrupted_repetition_does_not_claim_a_saved_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> None:
        raise TrainingInterruptedError("the state is saved")

    root = checkout(tmp_path)
    monkeypatch.setattr("evidence_grid.actions.run_cell", stopped)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)
    given = ["--cell", "tiny/ce/1", "--root", str(tmp_path), "--device", "cpu"]
    assert evidence.main(given) == 1
    assert capsys.readouterr().err == "evidence: stopped by a signal; nothing is kept of a repeated cell\n"
    assert list((root.runs / "tiny/ce").iterdir()) == []
    assert evidence.main([*given, "--keep-runs"]) == 1
    assert capsys.readouterr().err == "evidence: the state is saved\n"


def test_a_folder_that_cannot_be_gone_on_with_is_named(tmp_path: Path) -> None:
    job = job_of(plan_of(checkout(tmp_path)).cell("tiny/ce/0"), device="cpu")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "letter.txt").write_text("not a run's")
    with pytest.raises(RunError, match=rf"{folder} cannot be gone on with .*; remove it to start anew"):
        run_cell(job, folder, Silent())


def test_a_cell_is_repeated_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkout(tmp_path, recipe=RECIPE | {"train": RECIPE["train"] | {"steps": 1}})
    threads = str(torch.get_num_threads())
    given = ["--cell", "tiny/ce/0", "--root", str(tmp_path), "--device", "cpu", "--threads", threads]
    assert evidence.main(given) == 0
    assert "nothing is stored of this cell" in capsys.readouterr().out


def test_the_stored_command_says_which_data_it_needs_and_not_where_they_are(tmp_path: Path) -> None:
    job = job_of(plan_of(checkout(tmp_path, changed(data="camvid:mine"))).cell("tiny/ce/0"))
    assert command_of(job, job.recipe()) == "python benchmarks/evidence.py --cell tiny/ce/0 --data tiny=camvid:PATH"
    job = job_of(plan_of(checkout(tmp_path)).cell("tiny/ce/0"))
    assert command_of(job, job.recipe()) == "python benchmarks/evidence.py --cell tiny/ce/0"
