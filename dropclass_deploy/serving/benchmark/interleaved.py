"""A handful of calls timed turn by turn in one run, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic, perf_counter_ns


def interleaved_ms(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 3, budget_s: float | None = None
) -> dict[str, list[float]]:
    """Milliseconds of each call, one entry a round; the order rotates from round to round.

    Args:
        calls: by name.
        rounds: at most.
        warmup: rounds before the clock.
        budget_s: no new round starts after so many seconds; the first one always runs.
    """
    names = list(calls)
    for _ in range(warmup):
        for name in names:
            calls[name]()
    timings: dict[str, list[float]] = {name: [] for name in names}
    started = monotonic()
    for index in range(rounds):
        if index and budget_s is not None and monotonic() - started > budget_s:
            break
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            begin = perf_counter_ns()
            calls[name]()
            timings[name].append((perf_counter_ns() - begin) / 1e6)
    return timings
