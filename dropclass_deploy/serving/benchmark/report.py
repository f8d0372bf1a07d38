"""The figures of a benchmark, and their form as ``evidence/bench.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dropclass_deploy.serving.benchmark.contender import Contender
from dropclass_deploy.serving.benchmark.rounds import Key, Timings

BENCH_FILE = "bench.json"
SCENARIO = "single-stream"
QUERIES_FOR_P99 = 100
"""Below it the 99th percentile is the slowest query or two: noise, not a figure."""


@dataclass(frozen=True)
class Result:
    """One contender in one scope; latencies in ms.

    Attributes:
        contender: its name.
        scenario: "single-stream": the next query starts when the last has ended.
        scope: "model", "transfer" or "end_to_end".
        resolution: [height, width] of the mask that is made.
        batch: images a query.
        queries: how many were timed.
        latency_ms: percentiles p50, p90, p99; p99 is None below 100 queries, where it would be the slowest query.
        throughput_per_s: images a second of busy time.
        stages_ms: medians by stage; empty where the scope has none.
        cv: coefficient of variation of the latency: above some 0.1 the machine was not quiet.
    """

    contender: str
    scenario: str
    scope: str
    runtime: str
    provider: str
    precision: str
    resolution: tuple[int, int]
    batch: int
    queries: int
    latency_ms: dict[str, float | None]
    throughput_per_s: float
    stages_ms: dict[str, float]
    cv: float


@dataclass(frozen=True)
class Ratio:
    """How many times a peer's latency is the artifact's own, paired round by round: above 1 the artifact is faster."""

    scope: str
    against: str
    median: float
    p10: float
    p90: float
    rounds: int


@dataclass(frozen=True)
class BenchReport:
    """All figures of one run.

    Attributes:
        headline: one or two sentences: the main figure, and whether parity stands behind it.
        environment: of the machine and software.
        parity_verdict: of ``evidence/parity.json``, None when there is none for these files.
        image: which one was segmented.
        results: a contender and scope each.
        ratios: a peer and scope each.
        notes: sentences that a reader should know.
    """

    headline: str
    environment: dict[str, Any]
    parity_verdict: str | None
    image: str
    results: tuple[Result, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        content = asdict(self)
        return content | {key: list(content[key]) for key in ("results", "ratios", "notes")}


def result_of(contender: Contender, scope: str, timings: Timings, resolution: tuple[int, int]) -> Result:
    """Percentiles, throughput, stages and spread of one contender in one scope."""
    latency_ms = np.array(timings.latency_ns, dtype=np.float64) / 1e6
    p50, p90, p99 = np.percentile(latency_ms, (50, 90, 99)).tolist()
    return Result(
        contender=contender.name,
        scenario=SCENARIO,
        scope=scope,
        runtime=contender.runtime,
        provider=contender.provider,
        precision=contender.precision,
        resolution=resolution,
        batch=1,
        queries=len(latency_ms),
        latency_ms={"p50": p50, "p90": p90, "p99": p99 if len(latency_ms) >= QUERIES_FOR_P99 else None},
        throughput_per_s=float(1e3 * len(latency_ms) / latency_ms.sum()),
        stages_ms=_stage_medians(timings.stages_ms),
        cv=float(latency_ms.std() / latency_ms.mean()),
    )


def ratios_of(timings: Mapping[Key, Timings], ours: str) -> tuple[Ratio, ...]:
    """Every peer against ``ours`` in every scope that both have."""
    pairs = [(scope, name) for scope, name in timings if name != ours and (scope, ours) in timings]
    return tuple(_ratio(scope, name, timings[scope, name], timings[scope, ours]) for scope, name in pairs)


def _ratio(scope: str, against: str, peer: Timings, ours: Timings) -> Ratio:
    each = np.array(peer.latency_ns, dtype=np.float64) / np.array(ours.latency_ns, dtype=np.float64)
    p10, median, p90 = np.percentile(each, (10, 50, 90)).tolist()
    return Ratio(scope, against, median, p10, p90, len(each))


def _stage_medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.median([each[name] for each in stages])) for name in stages[0]}
