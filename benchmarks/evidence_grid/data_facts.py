"""What a cell's data were, and whether the cells of a part were made of the same."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dropclass_deploy.core.errors import UserError
from dropclass_deploy.data import Dataset, open_dataset
from dropclass_deploy.training import Recipe
from evidence_grid.plan import slug
from evidence_grid.store import Stored

Facts = dict[str, Any]
_CLOSE = 1e-6
"""Relative: frequencies are stored with six digits, and the same data give the same ones."""
_REMEDY = "remove the stored cells of one of them, or bring the data back"


def open_splits(recipe: Recipe, evaluated: Iterable[str]) -> dict[str, Dataset]:
    """The splits that a run trains on, validates on and is evaluated on, by name.

    Raises:
        DataError: when one cannot be opened.
    """
    names = dict.fromkeys([recipe.splits.train, recipe.splits.val, *evaluated])
    return {name: open_dataset(recipe.data, name) for name in names}


def of_splits(splits: Mapping[str, Dataset]) -> Facts:
    """Images a split and the size of the first one's labels: what another copy of a data set often has otherwise."""
    return {
        "splits": {
            name: {"images": len(dataset), "first_labels": list(dataset.mask(0).shape)}
            for name, dataset in splits.items()
        }
    }


def of_run(model_json: Mapping[str, Any], splits: Mapping[str, Dataset]) -> Facts:
    """``of_splits``, and the training pixels and images of each class, from a run's ``model.json``."""
    return {**of_splits(splits), "class_pixels": model_json["class_pixels"], "class_images": model_json["class_images"]}


def differences(one: Stored, other: Stored) -> list[str]:
    """What differs between the data of two cells, of what both know; the first cell's value comes first.

    A split that only one of them was evaluated on says nothing.
    """
    before, now = _flat(one), _flat(other)
    return [
        f"{what}: {before[what]} and {now[what]}"
        for what in before
        if what in now and not _same(before[what], now[what])
    ]


def refuse_mixed(cells: Sequence[Stored], where: str) -> None:
    """Refuse cells that one table cannot show.

    Raises:
        UserError: naming two cells and the first difference.
    """
    # Older cells know less: the first one that knows all is compared as well.
    first = [*cells[:1], *[cell for cell in cells if cell.get("data_facts")][:1]]
    for reference, cell in itertools.product(first, cells):
        found = differences(reference, cell)
        if found:
            names = f"{_name(reference)} and {_name(cell)}"
            raise UserError(f"{where}: the data of {names} differ: {found[0]}", remedy=_REMEDY)


def refuse_others(cells: Sequence[Stored], facts: Facts, where: str) -> None:
    """Refuse data that are not those of the stored cells, as far as opening them tells.

    Raises:
        UserError: naming the first difference.
    """
    for cell in cells:
        found = differences(cell, {"data_facts": facts})
        if found:
            raise UserError(f"{where}: the data of {_name(cell)} and those at hand differ: {found[0]}", remedy=_REMEDY)


def _flat(cell: Stored) -> dict[str, Any]:
    facts = cell.get("data_facts") or {}
    found = {
        f"{key} of {split}": value for split, known in facts.get("splits", {}).items() for key, value in known.items()
    }
    found |= {key: facts[key] for key in ("class_pixels", "class_images") if key in facts}
    return found | ({"frequency": cell["frequency"]} if "frequency" in cell else {})


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=_CLOSE)
    return bool(one == other)


def _name(cell: Stored) -> str:
    return f"{cell['grid']}/{slug(cell['setting'])}/{cell['seed']}"
