"""The timed loop: all contenders and scopes interleaved round by round in one run.

What disturbs a machine (a neighbour, a clock that slows down) then disturbs all of them, and their paired ratio stays.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, perf_counter_ns

from dropclass_deploy.serving.benchmark.contender import SCOPES, Query
from dropclass_deploy.serving.benchmark.options import BenchOptions

WARMUP_SHARE = 0.25
"""Of the budget: what warming up may take at most, beyond its first round."""


@dataclass
class Timings:
    """Of one contender in one scope, a query each: latency in ns, and stages in ms."""

    latency_ns: list[int] = field(default_factory=list)
    stages_ms: list[Mapping[str, float]] = field(default_factory=list)


Key = tuple[str, str]
"""(scope, name of the contender)."""


def run_rounds(queries: Mapping[str, Mapping[str, Query]], options: BenchOptions) -> dict[Key, Timings]:
    """Warm up, then time.

    Args:
        queries: contender's name → scope → query.
        options: rounds, warm-up and budget.

    Returns:
        Timings a scope and contender; all lists have one length, the number of rounds made (at least 1), and entries of
        one index belong to one round.
    """
    started = monotonic()
    order = [(scope, name) for scope in SCOPES for name in queries if scope in queries[name]]
    for index in range(options.warmup):
        if index and options.budget_s is not None and monotonic() - started > WARMUP_SHARE * options.budget_s:
            break
        for scope, name in order:
            queries[name][scope]()
    timings: dict[Key, Timings] = {key: Timings() for key in order}
    with _no_collection():
        for index in range(options.queries):
            _round(queries, _rotated(order, index), timings)
            if options.progress is not None:
                options.progress(index + 1, options.queries)
            if options.budget_s is not None and monotonic() - started > options.budget_s:
                break
    return timings


def _round(queries: Mapping[str, Mapping[str, Query]], order: Sequence[Key], timings: dict[Key, Timings]) -> None:
    for scope, name in order:
        query, timing = queries[name][scope], timings[scope, name]
        start = perf_counter_ns()
        stages = query()
        timing.latency_ns.append(perf_counter_ns() - start)
        timing.stages_ms.append(stages)


def _rotated(order: Sequence[Key], index: int) -> Sequence[Key]:
    """Another one begins in every round: nobody always runs behind the same neighbour's warm or cold caches."""
    start = index % len(order)
    return (*order[start:], *order[:start])


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector off, so that it does not run inside whichever query happens to trigger it."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
