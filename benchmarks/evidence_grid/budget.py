"""What a fill may use, and what fits into it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evidence_grid.plan import Cell


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


def expected_s(walls: Sequence[float], left: float) -> float | None:
    """Seconds that a run will take of which a share is left, from those of whole ones; None when none is known."""
    return statistics.median(walls) * left if walls else None


def first_that_fits(waiting: Sequence[tuple[Cell, float | None]], remaining_s: float) -> int | None:
    """Position of the first cell whose expected time is not known or not longer than what remains."""
    fits = (index for index, (_, expected) in enumerate(waiting) if expected is None or expected <= remaining_s)
    return next(fits, None)


def counted(cells: int) -> str:
    """1 cell, 2 cells."""
    return f"{cells} cell" if cells == 1 else f"{cells} cells"
