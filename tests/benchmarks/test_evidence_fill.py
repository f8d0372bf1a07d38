"""Filling a grid for real: children, a deadline in the middle, going on, repeating a cell."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import evidence
import pytest
import torch
from evidence_cells import RECIPE, changed, checkout, head, plan_of, pretend, stored
from evidence_grid import provenance, worker
from evidence_grid.budget import Resources, expected_s, first_that_fits
from evidence_grid.cell import run_cell, share_left
from evidence_grid.fill import Fill
from evidence_grid.job import job_of
from evidence_grid.parts import spent_s
from evidence_grid.provenance import device_name
from evidence_grid.root import Root
from evidence_grid.store import Store

from dropclass_deploy.core.progress import Silent

# Long enough to be stopped in the middle, short enough for a test.
LONGER = RECIPE | {"train": RECIPE["train"] | {"steps": 40, "validate_every": 20, "checkpoint_every": 40}}
DROPCLASS = "tiny/dropclass-lambda1-alpha10/0"


class EndsAfter:
    """A clock that stands still until a run has made some steps, and then is far beyond every deadline."""

    def __init__(self, run: Path, steps: int) -> None:
        self._metrics, self._steps, self._began = run / "metrics.jsonl", steps, time.monotonic()

    def __call__(self) -> float:
        if time.monotonic() - self._began > 120:
            return 1e9  # the child is lost: let the test fail rather than hang
        lines = self._metrics.read_text().splitlines() if self._metrics.is_file() else []
        return 1e9 if len(lines) >= self._steps else 0.0


def fill(folder: Path, runs: Path, said: list[str], **options: Any) -> int:
    root = checkout(folder, changed(seeds=[0]), LONGER)
    plan = plan_of(root)
    clock = {"clock": options.pop("clock")} if "clock" in options else {}
    resources = Resources(runs=runs, device="cpu", **options)
    cells = plan.cells(plan.grid("tiny"), ["dropclass λ1 α10"])
    return Fill(root, plan, cells, resources, say=said.append, **clock).run()


@pytest.mark.slow
def test_a_cell_stopped_by_the_deadline_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("evidence_grid.fill._POLL_S", 0.01)  # the steps are short
    # Drawing takes longer than the training, and no figure comes from it.
    monkeypatch.setattr("dropclass_deploy.training.loop.validation.write_curves", lambda folder, *, rare: None)
    runs, said = tmp_path / "runs", []
    folder = runs / DROPCLASS
    assert fill(tmp_path, runs, said, minutes=1, clock=EndsAfter(folder, 2)) == 0
    cell = plan_of(checkout(tmp_path, changed(seeds=[0]), LONGER)).cell(DROPCLASS)
    store = Store(tmp_path / "benchmarks/results/evidence")
    assert said[-1] == "0 cells done, 0 failed, 1 stopped, 0 not started; the same command goes on"
    assert store.read(cell) is None
    assert 0 < share_left(folder, cell.recipe(), provenance.made("cpu")) < 1
    spent = spent_s(folder)

    # What the next fill's child does, here: another start of Python with torch takes longer than the test.
    threads = torch.get_num_threads()
    job = job_of(cell, device="cpu")
    task = worker.Task.from_json(worker.Task(str(tmp_path), job, str(folder), 1, keep_run=False).to_json())
    # The plan and the recipe change meanwhile: what was planned is what is run.
    checkout(tmp_path, changed(seeds=[1]), RECIPE)
    before = signal.getsignal(signal.SIGTERM)
    try:
        worker.work(task)
        unbroken = run_cell(job, tmp_path / "unbroken", Silent())
        again = run_cell(job, tmp_path / "unbroken", Silent())
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, before)
    assert "resuming at step" in capsys.readouterr().out
    resumed = store.read(cell)
    assert resumed is not None
    assert resumed["wall_s"] > spent > 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["0.log"]
    assert fill(tmp_path, runs, said) == 0
    assert said[-1] == "nothing to do: all cells are there"
    changes = {"wall_s": 0, "parts": []}
    assert resumed | changes == unbroken | changes
    assert (len(resumed["parts"]), len(unbroken["parts"])) == (2, 1)
    first, second = resumed["parts"]
    assert first["steps"] > 0
    assert first["steps"] + second["steps"] == 40
    assert first["wall_s"] + second["wall_s"] == pytest.approx(resumed["wall_s"], abs=0.11)  # one digit each
    assert resumed["wall_complete"] is True
    # A complete run is evaluated, not trained, again.
    assert again["splits"] == unbroken["splits"]
    assert list(unbroken) == [
        *("grid", "setting", "seed", "overrides", "recipe_sha256", "recipe", "chosen", "data", "command", "steps"),
        *("code", "versions", "device", "threads", "wall_s", "wall_complete", "parts"),
        *("splits", "frequency", "correlation", "curve", "data_facts"),
    ]
    assert {split: sorted(heads) for split, heads in unbroken["splits"].items()} == {
        "val": ["folded", "plain"],
        "unbiased": ["folded", "plain"],
    }
    assert [point["step"] for point in unbroken["curve"]] == [20, 40]
    assert sum(unbroken["frequency"]) == pytest.approx(1, abs=1e-5)  # six digits each
    assert len(unbroken["correlation"]["signed"]) == 12
    facts = unbroken["data_facts"]
    assert facts["splits"] == {
        "train": {"images": 8, "first_labels": [32, 32]},
        "val": {"images": 4, "first_labels": [32, 32]},
        "unbiased": {"images": 4, "first_labels": [32, 32]},
    }
    assert sum(facts["class_pixels"]) <= 8 * 32 * 32
    assert max(facts["class_images"]) <= 8
    assert str(tmp_path) not in json.dumps(unbroken)


def test_a_child_that_fails_is_one_line_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout(tmp_path, changed(seeds=[0]))
    pretend(tmp_path, monkeypatch, "echo first; echo the disk is full; exit 1")
    runs = tmp_path / "runs"
    assert evidence.main(["tiny", "--root", str(tmp_path), "--runs", str(runs), "--device", "cpu"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"failed: tiny/ce/0: the disk is full (log: {runs / 'tiny/ce/0.log'})",
        f"failed: {DROPCLASS}: the disk is full (log: {runs / f'{DROPCLASS}.log'})",
        "0 cells done, 2 failed, 0 stopped, 0 not started",
    ]


def test_each_finished_cell_is_a_line_with_its_figures_and_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout(tmp_path, changed(seeds=[0]))
    plan = plan_of(root)
    for cell in plan.cells(plan.grid("tiny")):
        made = stored(cell, head(0.5, 0.4, 0.6, 0.4), wall_s=90) | {"device": device_name("cpu")}
        Store(tmp_path / "made").write(cell, made)
    # The cell's key stands in the task, the last argument.
    key = 'expr "$4" : \'.*"key": "\\([^"]*\\)\''
    store_it = f"mkdir -p {root.results}/$(dirname $k); cp {tmp_path}/made/$k.json {root.results}/$k.json"
    pretend(tmp_path, monkeypatch, f"k=$({key}); {store_it}")
    assert evidence.main(["tiny", "--root", str(tmp_path), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "tiny/ce/0: val mIoU 50.00, rare mIoU 40.00, 90 s; 1 cell left, about 1.5 minutes",
        f"{DROPCLASS}: val mIoU 50.00, rare mIoU 40.00, 90 s; no cell left",
        "2 cells done, 0 failed, 0 stopped, 0 not started",
    ]


def test_the_log_of_bad_data_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout(tmp_path, changed(data="camvid:nowhere"))
    job = job_of(plan_of(Root(tmp_path)).cell("tiny/ce/0"), device="cpu")
    task = worker.Task(str(tmp_path), job, str(tmp_path / "run"), torch.get_num_threads(), False)
    monkeypatch.setattr("sys.argv", ["worker", task.to_json()])
    assert worker.main() == worker.MISTAKE
    assert "nowhere" in capsys.readouterr().out.splitlines()[-1]


def test_a_cell_that_was_stored_meanwhile_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, said = checkout(tmp_path, changed(seeds=[0])), []
    plan = plan_of(root)
    cells = plan.cells(plan.grid("tiny"))
    for cell in cells:
        Store(tmp_path / "made").write(cell, stored(cell, head(0.5, 0.4, 0.6, 0.4)))
    pretend(tmp_path, monkeypatch, f"cp -r {tmp_path}/made/tiny {root.results}")
    assert Fill(root, plan, cells, Resources(runs=tmp_path / "runs", device="cpu"), say=said.append).run() == 0
    assert said[-1] == "1 cell done, 0 failed, 0 stopped, 0 not started"
    assert [path.name for path in (tmp_path / "runs/tiny").iterdir()] == ["ce"]


def test_no_cell_is_started_that_would_not_fit(tmp_path: Path) -> None:
    plan = plan_of(checkout(tmp_path))
    first, second, third, *_ = plan.cells(plan.grid("tiny"))
    assert expected_s([10, 40, 20], left=0.5) == 10
    assert expected_s([], left=1) is None
    assert first_that_fits([(first, 100), (second, 50), (third, None)], remaining_s=60) == 1
    assert first_that_fits([(first, 100), (second, None)], remaining_s=60) == 1
    assert first_that_fits([(first, 100)], remaining_s=60) is None
    assert first_that_fits([(first, 100)], remaining_s=100) == 0
    assert first_that_fits([], remaining_s=100) is None


def test_a_budget_too_small_for_any_cell_begins_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path)
    plan, store, said = plan_of(root), Store(root.results), []
    cells = plan.cells(plan.grid("tiny"))
    store.write(cells[0], stored(cells[0], head(0.5, 0.4, 0.6, 0.4), wall_s=90) | {"device": device_name("cpu")})
    pretend(tmp_path, monkeypatch, f"exit {worker.STOPPED}")
    resources = Resources(runs=tmp_path / "runs", minutes=1, device="cpu")
    assert Fill(root, plan, cells, resources, say=said.append).run() == 0
    assert said == [
        f"stopped: {DROPCLASS}",
        "0 cells done, 0 failed, 1 stopped, 4 not started; the same command goes on",
    ]


def test_the_list_says_what_is_there_and_what_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = checkout(tmp_path)
    plan, store = plan_of(root), Store(root.results)
    for seed, extra in ((0, {}), (1, {"recipe_sha256": "of another"})):
        cell = plan.cell(f"tiny/ce/{seed}")
        store.write(cell, stored(cell, head(0.5, 0.4, 0.6, 0.4)) | extra)
    assert evidence.main(["--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "tiny (all): 1 of 6 cells are there, 4 missing, 1 stale" in out
    assert "  stale: tiny/ce/1 (" in out
