"""Fill a grid: cells as child processes, as many at a time as asked for, within a time budget."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dropclass_deploy.core.metrics import percent
from dropclass_deploy.training.loop.stop_signals import StopSignals
from evidence_grid import provenance, worker
from evidence_grid.cell import share_left
from evidence_grid.child import Child, start
from evidence_grid.job import job_of
from evidence_grid.parts import Made
from evidence_grid.plan import Cell, Plan
from evidence_grid.root import Root
from evidence_grid.store import FRESH, Store

_POLL_S = 0.2


@dataclass(frozen=True)
class Resources:
    """What a fill may use.

    Attributes:
        runs: folder of the run folders.
        minutes: after which running cells are stopped, their state saved; None for no limit.
        jobs: cells at a time.
        threads: of one cell.
        device: as ``train.device``.
        data: FORMAT:PATH in place of the grid's, or None.
        keep_runs: whether finished run folders stay.
    """

    runs: Path
    minutes: float | None = None
    jobs: int = 1
    threads: int = 1
    device: str = "auto"
    data: str | None = None
    keep_runs: bool = False

    def folder(self, cell: Cell) -> Path:
        """Of a cell's run."""
        return self.runs / cell.key


@dataclass
class _Tally:
    done: int = 0
    failed: int = 0
    stopped: int = 0


def expected_s(walls: Sequence[float], left: float) -> float | None:
    """Seconds that a run will take of which a share is left, from those of whole ones; None when none is known."""
    return statistics.median(walls) * left if walls else None


def first_that_fits(waiting: Sequence[tuple[Cell, float | None]], remaining_s: float) -> int | None:
    """Position of the first cell whose expected time is not known or not longer than what remains."""
    fits = (index for index, (_, expected) in enumerate(waiting) if expected is None or expected <= remaining_s)
    return next(fits, None)


@dataclass
class Fill:
    """One fill of some cells of a grid.

    Attributes:
        root: the checkout.
        plan: its plan.
        cells: all of one grid that are wanted; those stored already are left out.
        resources: what it may use.
        say: takes a line of progress.
        clock: seconds.
    """

    root: Root
    plan: Plan
    cells: Sequence[Cell]
    resources: Resources
    say: Callable[[str], object] = print
    clock: Callable[[], float] = time.monotonic
    _running: list[Child] = field(default_factory=list, init=False)
    _walls: list[float] = field(default_factory=list, init=False)
    _left: dict[str, float] = field(default_factory=dict, init=False)
    _tally: _Tally = field(default_factory=_Tally, init=False)

    def run(self) -> int:
        """Fill what is missing or stale.

        At the deadline, at Ctrl-C and at SIGTERM the running cells save their state; the next fill goes on with them. A
        second Ctrl-C ends them at once.

        Returns:
            How many cells failed.
        """
        store = Store(self.root.results)
        waiting = [cell for cell in self.cells if store.state(cell) != FRESH]
        if not waiting:
            self.say("nothing to do: all cells are there")
            return 0
        self._walls = self._known_walls(store)
        made = provenance.made(self.resources.device)
        self._left = {cell.key: self._share_left(cell, made) for cell in waiting}
        minutes = self.resources.minutes
        deadline = float("inf") if minutes is None else self.clock() + 60 * minutes
        try:
            with StopSignals() as signals:
                waiting = self._work(waiting, store, signals, deadline)
        finally:
            for child in self._running:
                child.process.kill()
                child.process.wait()
        self._say_the_end(len(waiting))
        return self._tally.failed

    def _work(self, waiting: list[Cell], store: Store, signals: StopSignals, deadline: float) -> list[Cell]:
        """Until nothing runs any more; the cells that were not started."""
        told = False
        while True:
            self._reap(waiting, store)
            stop = signals.requested or self.clock() >= deadline
            if stop and not told:
                told = True
                self._terminate()
            while not stop and len(self._running) < self.resources.jobs:
                expected = [(cell, self._expected_s(cell)) for cell in waiting]
                index = first_that_fits(expected, deadline - self.clock())
                if index is None:
                    break
                self._start(waiting.pop(index), expected[index][1])
            if not self._running:
                return waiting
            time.sleep(_POLL_S)

    def _expected_s(self, cell: Cell) -> float | None:
        return expected_s(self._walls, self._left[cell.key])

    def _share_left(self, cell: Cell, made: Made) -> float:
        recipe = cell.recipe(self.resources.data, self.resources.device)
        return share_left(self.resources.folder(cell), recipe, made)

    def _known_walls(self, store: Store) -> list[float]:
        """Seconds of the stored cells of the grid, on this device."""
        device = provenance.device_name(self.resources.device)
        cells = self.plan.cells(self.cells[0].grid)
        whole = [stored for stored in store.fresh(cells) if stored.get("wall_complete") is not False]
        return [stored["wall_s"] for stored in whole if stored["device"] == device]

    def _start(self, cell: Cell, expected: float | None) -> None:
        resources, folder = self.resources, self.resources.folder(cell)
        folder.parent.mkdir(parents=True, exist_ok=True)
        task = worker.Task(
            root=str(self.root.folder),
            job=job_of(cell, resources.data, resources.device),
            folder=str(folder),
            threads=resources.threads,
            keep_run=resources.keep_runs,
        )
        log = folder.with_name(f"{folder.name}.log")
        self._running.append(Child(cell, start(task, log), log, expected, self.clock()))

    def _terminate(self) -> None:
        for child in self._running:
            child.process.send_signal(signal.SIGTERM)
        if self._running:
            self.say(f"stopping {', '.join(child.cell.key for child in self._running)}: the state is being saved")

    def _reap(self, waiting: Sequence[Cell], store: Store) -> None:
        """Account for the children that have ended."""
        ended = [child for child in self._running if child.process.poll() is not None]
        for child in ended:
            self._running.remove(child)
            code = child.process.returncode
            if code == worker.DONE:
                self._tally.done += 1
                self._say_done(child.cell, waiting, store)
            elif code in (worker.STOPPED, -signal.SIGTERM):
                self._tally.stopped += 1
                self.say(f"stopped: {child.cell.key}")
            else:
                self._tally.failed += 1
                self.say(f"failed: {child.cell.key}: {child.reason()} (log: {child.log})")

    def _say_done(self, cell: Cell, waiting: Sequence[Cell], store: Store) -> None:
        stored = store.read(cell)
        if stored is None:
            return
        self._walls = self._known_walls(store)
        split = cell.grid.splits[0]
        figures = stored["splits"][split]["plain"]
        line = f"{cell.key}: {split} mIoU {percent(figures['miou'], 2)}, rare mIoU {percent(figures['rare_miou'], 2)}"
        self.say(f"{line}, {stored['wall_s']:.0f} s; {self._outlook(waiting)}")

    def _outlook(self, waiting: Sequence[Cell]) -> str:
        now = self.clock()
        times = [self._expected_s(cell) for cell in waiting]
        # Of a running one, what was expected when it began: its checkpoints are too far apart to tell.
        times += [
            None if one.expected_s is None else max(0.0, one.expected_s - now + one.began) for one in self._running
        ]
        if not times:
            return "no cell left"
        known = [value for value in times if value is not None]
        minutes = sum(known) / self.resources.jobs / 60
        left = f"{_count(len(times))} left"
        return left + (f", about {minutes:.1f} minutes" if len(known) == len(times) else "")

    def _say_the_end(self, left: int) -> None:
        tally = self._tally
        line = f"{_count(tally.done)} done, {tally.failed} failed, {tally.stopped} stopped, {left} not started"
        again = "; the same command goes on" if tally.stopped or left else ""
        self.say(line + again)


def _count(cells: int) -> str:
    return f"{cells} cell" if cells == 1 else f"{cells} cells"
