"""The stored cells of one part of a grid, asked by setting: what tables and curves are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dropclass_deploy.core.errors import UserError
from evidence_grid.figures import BySeed
from evidence_grid.plan import Grid
from evidence_grid.schema import ALL
from evidence_grid.store import Stored

PLAIN, FOLDED = "plain", "folded"
_TITLES = {ALL: "", "choose": ", choosing", "confirm": ", confirming"}


@dataclass(frozen=True)
class ClassRow:
    """A class: its position in the class table, its share of the training pixels, whether it is rare."""

    index: int
    name: str
    share: float
    rare: bool


@dataclass(frozen=True)
class PartCells:
    """One part.

    Attributes:
        grid: it belongs to.
        name: of the part.
        stored: its cells that are there.
    """

    grid: Grid
    name: str
    stored: tuple[Stored, ...]

    @property
    def settings(self) -> tuple[str, ...]:
        """Those with a cell at least, in the plan's order."""
        run = {cell["setting"] for cell in self.stored}
        return tuple(setting for setting in self.grid.parts[self.name].settings if setting in run)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Settings without any cell."""
        return tuple(setting for setting in self.grid.parts[self.name].settings if setting not in self.settings)

    @property
    def planned(self) -> int:
        """Seeds a setting."""
        return len(self.grid.parts[self.name].seeds)

    @property
    def missing(self) -> int:
        """Cells that are not there."""
        return len(self.grid.parts[self.name].settings) * self.planned - len(self.stored)

    @property
    def complete(self) -> tuple[str, ...]:
        """Settings with a cell for every seed."""
        return tuple(setting for setting in self.settings if len(self.cells(setting)) == self.planned)

    def only(self, settings: Sequence[str]) -> PartCells:
        """The part as if these were all of its settings."""
        whole = self.grid.parts[self.name]
        planned = tuple(setting for setting in whole.settings if setting in settings)
        grid = replace(self.grid, parts={self.name: whole.model_copy(update={"settings": planned})})
        return PartCells(grid, self.name, tuple(cell for cell in self.stored if cell["setting"] in planned))

    @property
    def title(self) -> str:
        """The grid's name, and what the part is for."""
        return f"{self.grid.name}{_TITLES[self.name]}"

    @property
    def seeds(self) -> str:
        """Which seeds the part is made of."""
        planned = self.grid.parts[self.name].seeds
        there = {cell["seed"] for cell in self.stored}
        shown = ", ".join(str(seed) for seed in planned if seed in there)
        missing = len(planned) - len(there)
        return f"{'seed' if len(there) == 1 else 'seeds'} {shown}" + (f" (of {len(planned)})" if missing else "")

    def cells(self, setting: str) -> dict[int, Stored]:
        """By seed."""
        return {cell["seed"]: cell for cell in self.stored if cell["setting"] == setting}

    def figure(self, setting: str, split: str, head: str, key: str) -> BySeed:
        """A head's "miou" or "rare_miou" by seed, a fraction."""
        found = self._heads(setting, split, head)
        return {seed: figures[key] for seed, figures in found.items()}

    def class_iou(self, setting: str, split: str, head: str, name: str) -> BySeed:
        """A class's IoU by seed, a fraction."""
        found = self._heads(setting, split, head)
        return {seed: _iou_of(figures["classes"], name) for seed, figures in found.items()}

    def correlation(self, setting: str, kind: str, index: int | None = None) -> BySeed:
        """Row sum ("signed" or "absolute") of a class by seed, or the mean over classes."""
        found = {seed: cell["correlation"] for seed, cell in self.cells(setting).items()}
        return {
            seed: None if sums is None else sums[kind][index] if index is not None else _mean(sums[kind])
            for seed, sums in found.items()
        }

    def has_head(self, setting: str, split: str, head: str) -> bool:
        """Whether any of the setting's networks has the head."""
        return bool(self._heads(setting, split, head))

    def classes(self) -> list[ClassRow]:
        """The most frequent first."""
        cell = self.stored[0]
        rows = cell["splits"][self.grid.splits[0]][PLAIN]["classes"]
        shares = cell["frequency"]
        found = [ClassRow(index, row["name"], shares[index], row["rare"]) for index, row in enumerate(rows)]
        return sorted(found, key=lambda row: (-row.share, row.index))

    def _heads(self, setting: str, split: str, head: str) -> dict[int, dict[str, Any]]:
        cells = self.cells(setting)
        return {seed: cell["splits"][split][head] for seed, cell in cells.items() if head in cell["splits"][split]}


def _iou_of(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    for row in rows:
        if row["name"] == name:
            value: float | None = row["iou"]
            return value
    raise UserError(f"there is no class {name!r} to watch", expected=f"one of {', '.join(row['name'] for row in rows)}")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
