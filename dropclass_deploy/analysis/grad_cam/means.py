"""Means of a pair's shares over the images that every run has a figure of, so that they can be held against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MAPS = ("truth_map", "confused_map")
ON = ("on_truth", "on_confused")


def shared_means(looks: Sequence[dict[str, Any]], able: Sequence[int], count: int) -> dict[str, Any]:
    """``used``, ``even`` and the runs' figures of a pair.

    A map that is 0 everywhere in one run has no share in that image: it is then left out for all of them, and of what an
    even map would give.

    Args:
        looks: an image each, with the shares of ``runs`` and of an ``even`` map.
        able: places of the runs that have maps.
        count: of runs.
    """
    used = {name: {on: _used(looks, able, name, on) for on in ON} for name in MAPS}

    def means(share: Callable[[dict[str, Any], str, str], float]) -> dict[str, dict[str, float | None]]:
        return {name: {on: _mean([share(look, name, on) for look in used[name][on]]) for on in ON} for name in MAPS}

    def of_run(place: int) -> dict[str, dict[str, float | None]]:
        if place not in able:
            return {name: dict.fromkeys(ON) for name in MAPS}
        return means(lambda look, name, on: look["runs"][place][name][on])

    return {
        "used": {name: {on: len(used[name][on]) for on in ON} for name in MAPS},
        "even": means(lambda look, _, on: look["even"][on]),
        "runs": [of_run(place) for place in range(count)],
    }


def _used(looks: Sequence[dict[str, Any]], able: Sequence[int], name: str, on: str) -> list[dict[str, Any]]:
    def known(look: dict[str, Any]) -> bool:
        return look["even"][on] is not None and all(look["runs"][place][name][on] is not None for place in able)

    return [look for look in looks if known(look)]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
