"""Reading ``evidence.yaml``: what contradicts itself is refused here, before any work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data.registry import FORMATS
from evidence_grid.plan import Grid, Plan, refuse_unknown, slug
from evidence_grid.schema import GridSection, Overrides, PlanFile

_GIVEN_ELSEWHERE = {
    "train.seed": "seeds",
    "train.device": "--device on the command line",
    "data": "the grid's key data",
}


def load_plan(path: Path, root: Path) -> Plan:
    """Read an ``evidence.yaml``.

    Args:
        path: of the file.
        root: where relative paths of recipes start.

    Raises:
        UserError: naming the first key that does not fit.
    """
    try:
        content = PlanFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}", expected="a YAML file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    _refuse_collisions(content.settings, path)
    for what, named in (("retired", content.retired), ("about", content.about)):
        refuse_unknown("setting", list(named), content.settings, f"{path}: {what}")
    for place, overrides in _all_overrides(content):
        _refuse_given_elsewhere(overrides, f"{path}: {place}")
    grids = {name: _grid(name, grid, root, content) for name, grid in content.grids.items()}
    for grid in grids.values():
        _check_settings(grid, content.settings, path)
    return Plan(grids, content.settings)


def _grid(name: str, section: GridSection, root: Path, content: PlanFile) -> Grid:
    return Grid(
        name=name,
        root=root,
        recipe=root / section.recipe,
        parts=section.parts(),
        baselines=section.baselines or (next(iter(content.settings)),),
        headline=section.headline,
        splits=tuple(one.split for one in section.evaluate),
        watch=section.watch,
        reduced=section.reduced,
        data=section.data,
        overrides=section.set,
        retired=content.retired,
        about=content.about,
    )


def _all_overrides(content: PlanFile) -> Iterator[tuple[str, Overrides]]:
    yield from ((f"settings.{name}", overrides) for name, overrides in content.settings.items())
    yield from ((f"grids.{name}.set", grid.set) for name, grid in content.grids.items())


def _refuse_given_elsewhere(overrides: Overrides, where: str) -> None:
    for key in overrides:
        if key in _GIVEN_ELSEWHERE:
            raise UserError(f"{where} sets {key}", remedy=f"that is given by {_GIVEN_ELSEWHERE[key]}")


def _refuse_collisions(settings: dict[str, Overrides], path: Path) -> None:
    taken: dict[str, str] = {}
    for name in settings:
        if not slug(name):
            raise UserError(f"{path}: the setting {name!r} has no letter or digit for a file name", remedy="rename it")
        other = taken.setdefault(slug(name), name)
        if other != name:
            raise UserError(
                f"{path}: the settings {other!r} and {name!r} would both be stored as {slug(name)!r}",
                remedy="rename one of them",
            )


def _check_settings(grid: Grid, settings: dict[str, Overrides], path: Path) -> None:
    where = f"{path}: grids.{grid.name}"
    if re.fullmatch(r"[a-z0-9_-]+", grid.name) is None:
        raise UserError(f"{where}: the name", expected="small letters, digits, _ and -: it stands in file names")
    if grid.data is not None and (":" not in grid.data or grid.data.partition(":")[0] not in FORMATS):
        raise UserError(f"{where}.data: {grid.data!r}", expected=f"FORMAT:PATH with one of {', '.join(FORMATS)}")
    for name, part in grid.parts.items():
        refuse_unknown("setting", part.settings, settings, f"{where} ({name})")
        for kind, wanted in (("baseline", grid.baselines), ("headline setting", grid.headline or ())):
            refuse_unknown(kind, wanted, part.settings, f"{where} ({name})")
