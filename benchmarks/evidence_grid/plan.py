"""The grids as cells: what each trains, under which name, and what makes two of them the same."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.training.recipe import Recipe, load_recipe
from evidence_grid.schema import Overrides, Part

_SPELLED = str.maketrans({"λ": "lambda", "α": "alpha", "β": "beta", "γ": "gamma", "μ": "mu", "σ": "sigma"})


@dataclass(frozen=True)
class Grid:
    """A grid ready to run.

    Attributes:
        name: in file names and markers.
        root: where relative paths of its data start.
        recipe: path of its YAML file.
        parts: by name, see ``GridSection.parts``.
        baselines: settings that differences are taken to.
        headline: settings of the compact table, or None for the first six of the part.
        splits: that are evaluated, the first one is the headline's.
        watch: a class with a column of its own, or None.
        reduced: a sentence above every table, or None.
        data: in place of the recipe's, or None.
        overrides: of the recipe, for all settings.
        retired: settings whose options are gone, and the last commit that has them.
        about: what a setting is, and its source.
    """

    name: str
    root: Path
    recipe: Path
    parts: dict[str, Part]
    baselines: tuple[str, ...]
    headline: tuple[str, ...] | None
    splits: tuple[str, ...]
    watch: str | None
    reduced: str | None
    data: str | None
    overrides: Overrides
    retired: dict[str, str]
    about: dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One training run: a grid, a setting, a seed; ``part`` says which table it belongs to."""

    grid: Grid
    part: str
    setting: str
    seed: int
    setting_overrides: Overrides

    @property
    def retired(self) -> str | None:
        """The last commit that can train it, when its setting's options are gone."""
        return self.grid.retired.get(self.setting)

    @property
    def key(self) -> str:
        """GRID/SETTING/SEED with the setting as in file names."""
        return f"{self.grid.name}/{slug(self.setting)}/{self.seed}"

    @property
    def overrides(self) -> Overrides:
        """Everything that differs from the recipe file, the data aside."""
        return {**self.grid.overrides, **self.setting_overrides, "train.seed": self.seed}

    def recipe(self, data: str | None = None, device: str | None = None) -> Recipe:
        """The recipe that the cell trains, its data by an absolute path.

        Raises:
            RecipeError: for an override that does not fit.
        """
        given = {"train.device": device} if device else {}
        return self._recipe({**self.overrides, **given}, data)

    def _recipe(self, overrides: Overrides, data: str | None = None) -> Recipe:
        data = data or self.grid.data
        given = {"data": data} if data else {}
        lines = [f"{key}={_as_yaml(value)}" for key, value in {**overrides, **given}.items()]
        return with_data(load_recipe(self.grid.recipe, lines), lambda data: absolute(data, self.grid.root))

    def digest(self) -> str:
        """SHA-256 of the recipe, wherever the data lie."""
        return self.identity.digest()

    @cached_property
    def identity(self) -> Recipe:
        """The recipe, wherever the data lie."""
        # Once a cell: its recipe file may change while a grid is being filled.
        return with_data(self.recipe(), data_identity)

    @cached_property
    def others_identity(self) -> Recipe:
        """The recipe without what the setting changes: all that is left of a retired one."""
        return with_data(self._recipe({**self.grid.overrides, "train.seed": self.seed}), data_identity)


@dataclass(frozen=True)
class Plan:
    """All grids of an ``evidence.yaml``."""

    grids: dict[str, Grid]
    settings: dict[str, Overrides]

    def grid(self, name: str) -> Grid:
        """Raises UserError for a name that is not there."""
        if name not in self.grids:
            raise UserError(f"there is no grid {name!r}", expected=f"one of {', '.join(self.grids)}")
        return self.grids[name]

    def cells(self, grid: Grid, settings: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Cell]:
        """Seeds outermost, so that a grid broken off is still paired.

        Args:
            settings: names or slugs of those wanted; none means all.
            seeds: those wanted; none means all.

        Raises:
            UserError: for a setting or seed that the grid has not, or that it has not together.
        """
        cells = list(self._all(grid))
        refuse_unknown("setting", settings, {name for cell in cells for name in (cell.setting, slug(cell.setting))})
        refuse_unknown("seed", seeds, {cell.seed for cell in cells})
        wanted = {slug(name) for name in settings}
        found = [
            cell for cell in cells if (not wanted or slug(cell.setting) in wanted) and (not seeds or cell.seed in seeds)
        ]
        if not found:
            asked = f"{', '.join(settings)} with seed {', '.join(map(str, seeds))}"
            raise UserError(f"the grid {grid.name} does not run {asked}", expected="settings and seeds of one part")
        return found

    def cell(self, key: str) -> Cell:
        """The cell GRID/SETTING/SEED, the setting by name or slug.

        Raises:
            UserError: when there is none.
        """
        grid, _, rest = key.partition("/")
        setting, _, seed = rest.rpartition("/")
        if not (setting and seed.isdecimal()):
            raise UserError(f"the cell {key!r}", expected="GRID/SETTING/SEED, for example synthetic/ce/10")
        return self.cells(self.grid(grid), [setting], [int(seed)])[0]

    def _all(self, grid: Grid) -> Iterator[Cell]:
        for name, part in grid.parts.items():
            for seed in part.seeds:
                for setting in part.settings:
                    yield Cell(grid, name, setting, seed, self.settings[setting])


def slug(setting: str) -> str:
    """A setting's name for files and shells: "dropclass λ1 α10" → "dropclass-lambda1-alpha10"."""
    return re.sub(r"[^a-z0-9.+=_-]+", "-", setting.translate(_SPELLED).lower()).strip("-.")


def data_identity(data: str) -> str:
    """What of FORMAT:PATH determines a result: the format; for data that are drawn, the options as well."""
    name, _, _ = data.partition(":")
    return data if name == "synthetic" else name


def with_data(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with its FORMAT:PATH changed."""
    return recipe.model_copy(update={"data": change(recipe.data)})


def absolute(data: str, base: Path) -> str:
    """FORMAT:PATH with an absolute path, so that every spelling of a place is one recipe; drawn data stay as they are."""
    name, _, path = data.partition(":")
    if name == "synthetic" or not path:
        return data
    return f"{name}:{(base / os.path.expanduser(path)).resolve()}"  # noqa: PTH111 - Path's raises for an unknown user


def check_same_data(grid: Grid, data: str) -> None:
    """Refuse data of another format than the grid's, whose stored cells would mean something else, or without a path.

    Raises:
        UserError: saying which format is expected.
    """
    planned = data_identity(grid.data or load_recipe(grid.recipe).data)
    if ":" not in data or data_identity(data) != planned:
        expected = planned if ":" in planned else f"{planned}:PATH"
        raise UserError(f"--data {grid.name}={data}", expected=f"--data {grid.name}={expected}")


def refuse_unknown(what: str, wanted: Sequence[Any], known: Collection[Any], where: str = "the grid") -> None:
    """Raises UserError for the first name that is not known."""
    for name in wanted:
        if name not in known:
            raise UserError(f"{where} has no {what} {name!r}", expected=f"one of {', '.join(map(str, sorted(known)))}")


def _as_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True))
