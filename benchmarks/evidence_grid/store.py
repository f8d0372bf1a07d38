"""The stored cells: one JSON file each, and which of them are missing or stale."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.core.files import write_json
from evidence_grid.job import Job
from evidence_grid.plan import Cell
from evidence_grid.same_recipe import is_same, still_stands

Stored = dict[str, Any]
"""A cell's JSON, see ``cell.run_cell``."""
FRESH, STALE, MISSING = "there", "stale", "missing"
DIGITS = 6


class _Class(BaseModel):
    name: str
    iou: float | None
    rare: bool


class _Head(BaseModel):
    miou: float | None
    rare_miou: float | None
    classes: list[_Class]


class _Heads(BaseModel):
    plain: _Head
    folded: _Head | None = None


class _Point(BaseModel):
    step: int
    miou: float | None
    rare_miou: float | None


class _Sums(BaseModel):
    signed: list[float | None]
    absolute: list[float | None]


class _Shape(BaseModel):
    """The keys that tables, curves and a fill need; there may be more."""

    recipe_sha256: str
    code: dict[str, Any]
    versions: dict[str, Any]
    device: str
    threads: int
    wall_s: float
    splits: dict[str, _Heads]
    frequency: list[float]
    correlation: _Sums | None
    curve: list[_Point]


@dataclass(frozen=True)
class Store:
    """Cells below a folder, as GRID/SETTING/SEED.json."""

    folder: Path

    def path(self, cell: Cell | Job) -> Path:
        """Where a cell is stored."""
        return self.folder / f"{cell.key}.json"

    def read(self, cell: Cell) -> Stored | None:
        """A cell as it is stored, stale or not; None when it is not there.

        Raises:
            UserError: for a file that holds something else.
        """
        path = self.path(cell)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}", remedy="remove it, and run its grid again") from error
        try:
            _Shape.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            remedy = "remove it, and run its grid again"
            raise UserError(f"{path} holds no cell ({where}: {first['msg']})", remedy=remedy) from error
        # The place is the key: a setting renamed to the same file name keeps its cells.
        return {**content, "grid": cell.grid.name, "setting": cell.setting, "seed": cell.seed}

    def state(self, cell: Cell) -> str:
        """``FRESH``, ``STALE`` (stored from another recipe, or with fewer splits, than the plan has now) or ``MISSING``."""
        content = self.read(cell)
        if content is None:
            return MISSING
        return FRESH if _fits(content, cell) else STALE

    def fresh(self, cells: Iterable[Cell]) -> list[Stored]:
        """Those that are there and are what the plan asks for now."""
        found = ((cell, self.read(cell)) for cell in cells)
        return [one for cell, one in found if one is not None and _fits(one, cell)]

    def write(self, cell: Cell | Job, content: Stored) -> Path:
        """Store a cell, whole or not at all."""
        path = self.path(cell)
        write_json(path, content)
        return path


def _fits(content: Stored, cell: Cell) -> bool:
    """Whether a stored cell is what the plan asks for now."""
    if cell.retired is not None:
        same = content.get("overrides") == cell.overrides
        same = same and still_stands(content, cell.others_identity, cell.setting_overrides)
    else:
        same = content["recipe_sha256"] == cell.digest() or is_same(content, cell.identity)
    return same and {*cell.grid.splits} <= {*content["splits"]}


def rounded(value: Any) -> Any:
    """Floats to six significant digits, those that are not finite to None, through lists and dicts."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
