"""Whether a stored cell's recipe is the plan's of today, when the recipe's schema has changed in between.

A recipe's hash changes with every key that a new version adds, though its default leaves every run as it was. So a cell
stores its recipe, and which keys of it were chosen: it stands while every key that it knows has its value, every key that
came later is at its default, and no key that it had chosen is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dropclass_deploy.training import Recipe


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """What a cell stores: ``recipe``, every value that determines the run by dotted key, and ``chosen``, sorted keys."""
    return {"recipe": _flat(recipe.determining()), "chosen": sorted(_flat(recipe.determining(chosen_only=True)))}


def is_same(stored: dict[str, Any], recipe: Recipe) -> bool:
    """Whether a cell with these facts would be trained the same way by ``recipe`` today; False without facts."""
    if "recipe" not in stored or "chosen" not in stored:
        return False
    now = recipe_facts(recipe)
    known, today = stored["recipe"], now["recipe"]
    kept = all(known[key] == value for key, value in today.items() if key in known)
    came = [key for key in now["chosen"] if not _has(known, key)]
    gone = [key for key in stored["chosen"] if not _has(today, key)]
    return kept and not came and not gone


def still_stands(stored: dict[str, Any], others: Recipe, changed: Collection[str]) -> bool:
    """Whether nothing but what a retired setting changes differs between its cell and the plan of today.

    Args:
        stored: the cell, or anything else that has ``recipe_facts``.
        others: the plan's recipe without the setting.
        changed: dotted keys that the setting gives values to.
    """
    known = stored.get("recipe", {})
    today = _flat(others.determining())
    return all(
        known[key] == value for key, value in today.items() if key in known and not key.startswith(tuple(changed))
    )


def _has(flat: dict[str, Any], key: str) -> bool:
    """Whether a key is there, itself or as a section: a chosen section may hold nothing but defaults."""
    return key in flat or any(known.startswith(f"{key}.") for known in flat)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; an empty one is a value."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
