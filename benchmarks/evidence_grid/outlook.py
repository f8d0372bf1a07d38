"""How long the cells of a grid take, from those that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evidence_grid import provenance
from evidence_grid.budget import Resources, counted, expected_s
from evidence_grid.cell import share_left
from evidence_grid.child import Child
from evidence_grid.job import Job
from evidence_grid.plan import Cell, Plan
from evidence_grid.store import Store


@dataclass
class Outlook:
    """Expected seconds of the cells of a fill.

    Attributes:
        plan: its plan.
        cells: those that are to be run, all of one grid.
        resources: what the fill may use.
    """

    plan: Plan
    cells: Sequence[Cell]
    resources: Resources
    _walls: list[float] = field(default_factory=list, init=False)
    _left: dict[str, float] = field(default_factory=dict, init=False)

    def begin(self, jobs: dict[str, Job], store: Store) -> None:
        """Look at what is stored, and at what an earlier fill left of each cell."""
        made = provenance.made(self.resources.device)
        self._left = {
            cell.key: share_left(self.resources.folder(cell), jobs[cell.key].recipe(), made) for cell in self.cells
        }
        self.learn(store)

    def learn(self, store: Store) -> None:
        """Seconds of the whole cells of the grid that are stored, on this device."""
        device = provenance.device_name(self.resources.device)
        stored = store.fresh(self.plan.cells(self.cells[0].grid))
        whole = [cell for cell in stored if cell.get("wall_complete") is not False]
        self._walls = [cell["wall_s"] for cell in whole if cell["device"] == device]

    def expected_s(self, cell: Cell) -> float | None:
        """Seconds that a cell will take; None when no cell is known."""
        return expected_s(self._walls, self._left[cell.key])

    def line(self, waiting: Sequence[Cell], running: Sequence[Child], now: float) -> str:
        """What is left, and for how long."""
        times = [self.expected_s(cell) for cell in waiting]
        # Of a running one, what was expected when it began: its checkpoints are too far apart to tell.
        times += [None if one.expected_s is None else max(0.0, one.expected_s - now + one.began) for one in running]
        if not times:
            return "no cell left"
        known = [value for value in times if value is not None]
        minutes = sum(known) / self.resources.jobs / 60
        left = f"{counted(len(times))} left"
        return left + (f", about {minutes:.1f} minutes" if len(known) == len(times) else "")
