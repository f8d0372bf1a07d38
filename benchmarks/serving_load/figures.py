"""The arithmetic behind the figures; nothing but Python, for the client's process stays light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile
from statistics import linear_regression, median
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` percent lie, linear between neighbours (NumPy's default).

    Args:
        values: at least one, in any order.
        share: from 0 to 100.
    """
    ordered = sorted(values)
    position = share / 100 * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread_ms(seconds: Sequence[float]) -> dict[str, Any] | None:
    """Count, p50, p90, p99 and maximum of durations given in seconds, in milliseconds; None without any."""
    if not seconds:
        return None
    shares = {f"p{share}_ms": round(1e3 * percentile(seconds, share), 3) for share in (50, 90, 99)}
    return {"count": len(seconds), **shares, "max_ms": round(1e3 * max(seconds), 3)}


def slope_per_1000(requests: Sequence[int], kib: Sequence[float]) -> float:
    """Least-squares slope of memory (KiB) over the number of requests answered, a thousand requests."""
    return 1000 * linear_regression(requests, kib).slope


def second_half(requests: Sequence[int], kib: Sequence[float]) -> tuple[list[int], list[float]]:
    """The samples taken when at least half of the requests were answered: what warms up lies before them."""
    kept = [(count, value) for count, value in zip(requests, kib, strict=True) if count >= requests[-1] / 2]
    return [count for count, _ in kept], [value for _, value in kept]


def send_times(rate: float, duration_s: float) -> list[float]:
    """When an open-loop client means to send, seconds from its start: evenly, whatever the server does.

    Args:
        rate: requests a second.
        duration_s: the last one is sent before it is over.
    """
    count = math.ceil(rate * duration_s)
    # By multiplication: adding 1 / rate again and again would drift.
    return list(takewhile(lambda at: at < duration_s, (index / rate for index in range(count))))


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of the ratios of two series measured in turn."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    return {"median": round(median(ratios), 4), "min": round(min(ratios), 4), "max": round(max(ratios), 4)}
