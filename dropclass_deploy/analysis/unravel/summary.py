"""Means over the objects that every run has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dropclass_deploy.core.metrics import mean_of, to_json

_FIGURES = ("in_object", "in_class", "iou", "fall", "fall_outside")


def run_summaries(names: Sequence[str], objects: Sequence[dict[str, Any]], problems: dict[str, str]) -> dict[str, Any]:
    """``compared`` and ``runs`` of the section's content.

    Args:
        names: of the runs.
        objects: the entries of ``objects``.
        problems: run → why it could not be unravelled.
    """
    able = [place for place, name in enumerate(names) if name not in problems]
    shared = [one for one in objects if able and all(one["runs"][place]["in_object"] is not None for place in able)]
    runs = []
    for place, name in enumerate(names):
        own = [one["runs"][place] for one in shared] if place in able else []
        runs.append(
            {
                "name": name,
                "problem": problems.get(name),
                "arrived": _mean([one["arrived"] / one["followed"] for one in own]),
                "area": _mean([one["area"] for one in shared]) if own else None,
                **{figure: _mean([one[figure] for one in own]) for figure in _FIGURES},
                **_random(own),
            }
        )
    return {"compared": len(shared), "runs": runs}


def _random(own: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    falls, outside = (_draw_means([one[name] for one in own]) for name in ("random_falls", "random_falls_outside"))
    spread = float(np.std(falls, ddof=1)) if len(falls) > 1 else None
    return {"random_fall": _mean(falls), "random_spread": spread, "random_fall_outside": _mean(outside)}


def _draw_means(falls: Sequence[Sequence[float | None]]) -> list[float]:
    """Of each draw, the mean over the objects; draws without any are left out."""
    means = [_mean(list(draw)) for draw in zip(*falls, strict=True)]
    return [mean for mean in means if mean is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    return to_json(mean_of(np.array([np.nan if one is None else one for one in values], dtype=np.float64)))
