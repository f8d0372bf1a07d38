"""What the command line does: list, fill, repeat a cell, report."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from dropclass_deploy.core.errors import TrainingInterruptedError, UserError
from evidence_grid.budget import Resources
from evidence_grid.cell import COMMAND, run_cell
from evidence_grid.checks import check_device, check_runs
from evidence_grid.comparison import side_by_side
from evidence_grid.fill import Fill
from evidence_grid.job import job_of
from evidence_grid.parts import forget
from evidence_grid.plan import Grid, Plan, absolute, check_same_data
from evidence_grid.reading import load_plan
from evidence_grid.report import differing, gather
from evidence_grid.root import Root
from evidence_grid.store import FRESH, MISSING, STALE, Store
from evidence_grid.worker import LogReporter


@dataclass(frozen=True)
class Asked:
    """What the command line says of resources; see ``budget.Resources``. What is not there is refused.

    Attributes:
        data: GRID=FORMAT:PATH, any number.
    """

    runs: Path
    minutes: float | None
    jobs: int
    threads: int | None
    device: str
    data: tuple[str, ...]
    keep_runs: bool

    def __post_init__(self) -> None:
        check_device(self.device)
        check_runs(self.runs)

    def data_of(self, plan: Plan, grid: Grid) -> str | None:
        """What stands in place of a grid's data, or None.

        Raises:
            UserError: for an unknown grid, or data of another format.
        """
        found = {}
        for text in self.data:
            name, equals, data = text.partition("=")
            if not equals:
                raise UserError(f"--data {text}", expected=f"GRID=FORMAT:PATH, for example --data {grid.name}={text}")
            check_same_data(plan.grid(name), data)
            # As a shell means it; the plan's own paths start at the checkout.
            found[name] = absolute(data, Path.cwd())
        return found.get(grid.name)


def show(root: Root) -> int:
    """List the grids and how many of their cells are there."""
    plan, store = load_plan(root.plan, root.folder), Store(root.results)
    for grid in plan.grids.values():
        for name in grid.parts:
            cells = [cell for cell in plan.cells(grid) if cell.part == name]
            states = [store.state(cell) for cell in cells]
            line = f"{grid.name} ({name}): {states.count(FRESH)} of {len(cells)} cells are there"
            print(f"{line}, {states.count(MISSING)} missing, {states.count(STALE)} stale")
            for cell, state in zip(cells, states, strict=True):
                if state == STALE:
                    print(f"  stale: {cell.key} (its recipe or its splits have changed since)")
        print(f"  fill it: {COMMAND} {grid.name}")
    return 0


def fill(root: Root, name: str, asked: Asked, settings: Sequence[str], seeds: Sequence[int]) -> int:
    """Fill a grid; 1 when a cell failed."""
    plan = load_plan(root.plan, root.folder)
    grid = plan.grid(name)
    resources = Resources(
        runs=asked.runs.resolve(),
        minutes=asked.minutes,
        jobs=asked.jobs,
        threads=asked.threads or 1,
        device=asked.device,
        data=asked.data_of(plan, grid),
        keep_runs=asked.keep_runs,
    )
    filling = Fill(root, plan, plan.cells(grid, settings, seeds), resources, say=_say)
    return 1 if filling.run() else 0


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone while states are being saved
        print(line, flush=True)


def repeat(root: Root, key: str, asked: Asked, *, store: bool) -> int:
    """Run a cell in a new folder and print its figures beside those stored."""
    plan, cells = load_plan(root.plan, root.folder), Store(root.results)
    cell = plan.cell(key)
    if cell.retired is not None:
        remedy = f"git checkout {cell.retired}, then the same command"
        raise UserError(f"the options of {cell.setting!r} are gone: they did not pay", remedy=remedy)
    data, stored = asked.data_of(plan, cell.grid), cells.read(cell)
    # As many as then: with another number, sums are rounded in another order.
    torch.set_num_threads(asked.threads or (1 if stored is None else stored["threads"]))
    place = (asked.runs / cell.key).parent
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=place, prefix=f"{cell.seed}-again-"))
    try:
        new = run_cell(job_of(cell, data, asked.device), folder, LogReporter())
    except TrainingInterruptedError as error:
        if asked.keep_runs:
            raise
        # The next one trains in another folder: do not promise what the training does.
        raise TrainingInterruptedError("stopped by a signal; nothing is kept of a repeated cell") from error
    finally:
        if not asked.keep_runs:
            shutil.rmtree(folder, ignore_errors=True)
            forget(folder)
    print(side_by_side(stored, new))
    if store:
        print(f"stored: {cells.write(cell, new)}")
    return 0


def report(root: Root, *, check: bool) -> int:
    """Write tables and curves; or say which are not what the stored cells say: 1 when there is one."""
    gathered = gather(root, load_plan(root.plan, root.folder), Store(root.results))
    found = differing(gathered, write=not check)
    for path in found:
        shown = path.relative_to(root.folder)
        print(f"{shown} differs from the stored cells: run {COMMAND} --report" if check else f"wrote {shown}")
    if not found:
        print("documents and pictures are what the stored cells say")
    return 1 if check and found else 0
