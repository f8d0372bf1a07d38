"""From stored cells to documents and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_bytes, write_text
from evidence_grid import curves, documents, tables
from evidence_grid.cell import COMMAND
from evidence_grid.data_facts import refuse_mixed
from evidence_grid.part_cells import PartCells
from evidence_grid.plan import Plan
from evidence_grid.root import Root
from evidence_grid.store import Store

TABLES: dict[str, Callable[[PartCells], str]] = {
    "main": tables.main_table,
    "classes": tables.classes_table,
    "correlation": tables.correlation_table,
    "headline": tables.headline_table,
    "methods": tables.methods_table,
}
CURVES = "curves"


@dataclass(frozen=True)
class Report:
    """Everything that the documents may show.

    Attributes:
        root: the checkout.
        parts: by grid, then by the part's name.
    """

    root: Root
    parts: dict[str, dict[str, PartCells]]

    def content(self, name: str, document: Path) -> str:
        """What stands between the markers of a name: GRID:PART:TABLE, or GRID:curves.

        Raises:
            UserError: for an unknown name.
        """
        grid, *rest = name.split(":")
        parts = self.parts.get(grid, {})
        if parts and rest == [CURVES]:
            return self._picture_line(grid, document)
        part = parts.get(rest[0]) if len(rest) == 2 else None
        if part is None or rest[1] not in TABLES:
            raise UserError(
                f"{document}: the marker evidence:{name} names something unknown",
                expected=f"GRID:PART:{'|'.join(TABLES)} or GRID:{CURVES}, with {self._known_parts()}",
            )
        return TABLES[rest[1]](part) if part.stored else tables.not_run(part)

    def drawable(self, grid: str) -> list[PartCells]:
        """The parts of a grid that have cells."""
        return [part for part in self.parts[grid].values() if part.stored]

    def _picture_line(self, grid: str, document: Path) -> str:
        if not self.drawable(grid):
            return f"not run yet: `{COMMAND} {grid}`"
        link = Path(os.path.relpath(self.root.picture(grid), document.parent)).as_posix()
        return f"![validation mIoU and rare mIoU over the steps]({link})"

    def _known_parts(self) -> str:
        return ", ".join(f"{grid}:{part}" for grid, parts in self.parts.items() for part in parts)


def gather(root: Root, plan: Plan, store: Store) -> Report:
    """Read the cells that are there; stale ones are left out.

    Raises:
        UserError: when cells of one part were made of different data.
    """
    parts = {}
    for grid in plan.grids.values():
        cells = plan.cells(grid)
        stored = {name: tuple(store.fresh(cell for cell in cells if cell.part == name)) for name in grid.parts}
        for name, found in stored.items():
            refuse_mixed(found, f"{grid.name} ({name})")
        parts[grid.name] = {name: PartCells(grid, name, found) for name, found in stored.items()}
    return Report(root, parts)


def differing(report: Report, *, write: bool) -> list[Path]:
    """The documents and pictures that are not what the stored cells say; with ``write`` they are brought up to date.

    Raises:
        UserError: for a marker that names something unknown, before anything is written.
    """
    texts = {path: documents.read(path) for path in report.root.documents}
    new = {path: documents.filled(text, str(path), _content_for(report, path)) for path, text in texts.items()}
    found = [path for path in texts if new[path] != texts[path]]
    for path in found if write else []:
        write_text(path, new[path])
    return found + [report.root.picture(grid) for grid in report.parts if _picture_differs(report, grid, write=write)]


def _content_for(report: Report, path: Path) -> Callable[[str], str]:
    return lambda name: report.content(name, path)


def _picture_differs(report: Report, grid: str, *, write: bool) -> bool:
    path, content = report.root.picture(grid), curves.drawn(report.drawable(grid))
    if not content:
        # A picture of cells that are there no more would be a lie.
        stands = path.is_file()
        if write:
            path.unlink(missing_ok=True)
        return stands
    if curves.digest_in(path) == curves.digest(content):
        return False
    if write:
        write_bytes(path, curves.png(content))
    return True
