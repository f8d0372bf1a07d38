"""Fill a grid: cells as child processes, as many at a time as asked for, within a time budget."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dropclass_deploy.core.metrics import percent
from dropclass_deploy.training.loop.stop_signals import StopSignals
from evidence_grid import worker
from evidence_grid.budget import Resources, counted, first_that_fits
from evidence_grid.checks import alone, check_data, check_stored
from evidence_grid.child import Child, end, start
from evidence_grid.job import Job, job_of
from evidence_grid.outlook import Outlook
from evidence_grid.plan import Cell, Plan
from evidence_grid.root import Root
from evidence_grid.store import FRESH, Store

_POLL_S = 0.2
_GRACE_S = 60.0
"""For saving a state."""


@dataclass
class _Tally:
    started: int = 0
    done: int = 0
    failed: int = 0
    stopped: int = 0


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
    _jobs: dict[str, Job] = field(default_factory=dict, init=False)
    _outlook: Outlook = field(init=False)
    _tally: _Tally = field(default_factory=_Tally, init=False)

    def run(self) -> int:
        """Fill what is missing or stale.

        At the deadline, at Ctrl-C, at SIGTERM and when the terminal is closed the running cells save their state; the next
        fill goes on with them. A second Ctrl-C gives them a minute for it, a third ends them at once.

        Returns:
            How many cells failed.

        Raises:
            UserError: before the first cell, for data that do not fit, or when another fill of the grid is at work.
        """
        with alone(self.cells[0].grid, Store(self.root.results)):
            return self._run()

    def _run(self) -> int:
        store = Store(self.root.results)
        waiting = [cell for cell in self.cells if cell.retired is None and store.state(cell) != FRESH]
        if not waiting:
            self.say("nothing to do: all cells are there")
            return 0
        grid = self.cells[0].grid
        self._jobs = {cell.key: job_of(cell, self.resources.data, self.resources.device) for cell in waiting}
        check_data(grid, list(self._jobs.values()))
        check_stored(self.plan, grid, self._jobs[waiting[0].key], store)
        self._outlook = Outlook(self.plan, tuple(waiting), self.resources)
        self._outlook.begin(self._jobs, store)
        minutes = self.resources.minutes
        deadline = float("inf") if minutes is None else self.clock() + 60 * minutes
        try:
            with StopSignals() as signals, _hangup(signals):
                waiting = self._work(waiting, store, signals, deadline)
        finally:
            end(self._running, _GRACE_S)
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
                index = self._next(waiting, deadline - self.clock())
                if index is None:
                    break
                cell = waiting.pop(index)
                # A repetition may have stored it meanwhile.
                if store.state(cell) != FRESH:
                    self._start(cell)
            if not self._running:
                return waiting
            time.sleep(_POLL_S)

    def _next(self, waiting: Sequence[Cell], remaining_s: float) -> int | None:
        """Position of the cell to start now, or None."""
        index = first_that_fits([(cell, self._outlook.expected_s(cell)) for cell in waiting], remaining_s)
        if index is None and waiting and not self._tally.started:
            # In a budget smaller than any cell one must begin, or no number of fills would end: its state is saved.
            return 0
        return index

    def _start(self, cell: Cell) -> None:
        resources, folder = self.resources, self.resources.folder(cell)
        folder.parent.mkdir(parents=True, exist_ok=True)
        task = worker.Task(
            root=str(self.root.folder),
            job=self._jobs[cell.key],
            folder=str(folder),
            threads=resources.threads,
            keep_run=resources.keep_runs,
        )
        log = folder.with_name(f"{folder.name}.log")
        self._running.append(Child(cell, start(task, log), log, self._outlook.expected_s(cell), self.clock()))
        self._tally.started += 1

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
            child.close()
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
        self._outlook.learn(store)
        # As stored: the plan may have other splits by now.
        split = next(iter(stored["splits"]))
        figures = stored["splits"][split]["plain"]
        line = f"{cell.key}: {split} mIoU {percent(figures['miou'], 2)}, rare mIoU {percent(figures['rare_miou'], 2)}"
        left = self._outlook.line(waiting, self._running, self.clock())
        self.say(f"{line}, {stored['wall_s']:.0f} s; {left}")

    def _say_the_end(self, left: int) -> None:
        tally = self._tally
        line = f"{counted(tally.done)} done, {tally.failed} failed, {tally.stopped} stopped, {left} not started"
        again = "; the same command goes on" if tally.stopped or left else ""
        self.say(line + again)


@contextmanager
def _hangup(signals: StopSignals) -> Iterator[None]:
    """A closed terminal asks to stop, unless nohup said that it does not matter."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGHUP, lambda *_: setattr(signals, "requested", True))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
