"""Processes of cells: none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from evidence_cells import checkout, plan_of, pretend
from evidence_grid import worker
from evidence_grid.budget import Resources
from evidence_grid.child import Child, end, start
from evidence_grid.fill import Fill
from evidence_grid.job import job_of
from evidence_grid.plan import Cell


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return plan_of(checkout(tmp_path)).cell("tiny/ce/0")


def started(cell: Cell, tmp_path: Path) -> Child:
    log = tmp_path / "log"
    task = worker.Task(str(tmp_path), job_of(cell), str(tmp_path / "run"), 1, False)
    return Child(cell, start(task, log), log, None, 0.0)


def test_a_child_sees_the_end_of_its_parent(tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "exec cat")
    child = started(cell, tmp_path)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out"):
        child.process.wait(0.2)
    child.close()  # as the system does when the parent dies
    assert child.process.wait(10) == 0


def test_the_end_of_standard_input_is_sigterm() -> None:
    heard: list[int] = []
    before, kept = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number)), os.dup(0)
    reading, writing = os.pipe()
    try:
        os.dup2(reading, 0)
        worker.end_with_parent()
        time.sleep(0.1)
        assert heard == []
        os.close(writing)
        for _ in range(100):
            if not heard:
                time.sleep(0.05)
        assert heard == [signal.SIGTERM]
    finally:
        os.dup2(kept, 0)
        signal.signal(signal.SIGTERM, before)
        os.close(kept)
        os.close(reading)


def test_a_child_that_does_not_end_is_killed_after_the_grace(
    tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(tmp_path, monkeypatch, f"trap '' TERM; touch {tmp_path}/deaf; exec sleep 100")
    child = started(cell, tmp_path)
    while not (tmp_path / "deaf").exists():
        time.sleep(0.01)
    end([child], grace_s=0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_a_closed_terminal_stops_a_fill(tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "exec sleep 100")
    root, said, log = checkout(tmp_path), [], tmp_path / "runs" / "tiny" / "ce" / "0.log"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def clock() -> float:
        if log.exists():
            os.kill(os.getpid(), signal.SIGHUP)
        return 0.0

    try:
        resources = Resources(runs=tmp_path / "runs", device="cpu")
        assert Fill(root, plan_of(root), [cell], resources, say=said.append, clock=clock).run() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert said[0] == "stopping tiny/ce/0: the state is being saved"
    assert said[-1] == "0 cells done, 0 failed, 1 stopped, 0 not started; the same command goes on"
