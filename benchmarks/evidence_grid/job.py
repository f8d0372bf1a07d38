"""A cell written out: what its process trains, whatever becomes of the plan and its recipe files meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from dropclass_deploy.training.recipe import Recipe, parse_recipe
from evidence_grid.plan import Cell
from evidence_grid.schema import Overrides


@dataclass(frozen=True)
class Job:
    """Plain values that go through JSON.

    Attributes:
        key: GRID/SETTING/SEED, where the cell is stored.
        grid: its name.
        setting: its name.
        seed: of the run.
        overrides: of the recipe file.
        splits: that are evaluated.
        recipe_yaml: the whole recipe, with data and device.
    """

    key: str
    grid: str
    setting: str
    seed: int
    overrides: Overrides
    splits: Sequence[str]
    recipe_yaml: str

    def recipe(self) -> Recipe:
        """The recipe that is trained."""
        return parse_recipe(yaml.safe_load(self.recipe_yaml), f"the recipe of {self.key}")


def job_of(cell: Cell, data: str | None = None, device: str | None = None) -> Job:
    """What a cell asks for now.

    Args:
        cell: which.
        data: FORMAT:PATH in place of the grid's.
        device: as ``train.device``.

    Raises:
        RecipeError: for an override that does not fit.
    """
    return Job(
        key=cell.key,
        grid=cell.grid.name,
        setting=cell.setting,
        seed=cell.seed,
        overrides=cell.overrides,
        splits=cell.grid.splits,
        recipe_yaml=cell.recipe(data, device).to_yaml(),
    )
