"""The benchmark's tables: every contender by scope, with paired ratios and the stages of our own path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropclass_deploy.analysis.report.formats import NOTHING, Bar, count, known, milliseconds, times
from dropclass_deploy.analysis.report.records import Bench, BenchResult, Figure, Ratio

OURS = "ours"
_SCOPES = {
    "end_to_end": ("End to end", "encoded image → mask at the image's size"),
    "transfer": ("Transfer", "decoded image in memory → mask in memory"),
    "model": ("Model", "the network alone, its input in place"),
}


@dataclass(frozen=True)
class LatencyRow:
    """One contender; the bar of its p50 is in percent of the slowest of the scope."""

    name: str
    ours: bool
    how: str
    queries: str
    p50: Bar
    p90: str
    p99: str
    throughput: str
    ratio: str
    spread: str


@dataclass(frozen=True)
class ScopeTable:
    """All contenders of one scope in one scenario."""

    title: str
    meaning: str
    scenario: str
    input: str
    rows: tuple[LatencyRow, ...]
    stages: tuple[tuple[str, str], ...]


def scope_tables(bench: Bench | None) -> tuple[ScopeTable, ...]:
    """One table a scenario and scope, the whole path first."""
    if bench is None:
        return ()
    known_scopes = [*_SCOPES, *dict.fromkeys(r.scope for r in bench.results if r.scope not in _SCOPES)]
    scenarios = dict.fromkeys(result.scenario for result in bench.results)
    groups = ((scenario, scope, results_of(bench, scope, scenario)) for scenario in scenarios for scope in known_scopes)
    return tuple(_table(scenario, scope, results, bench.ratios) for scenario, scope, results in groups if results)


def results_of(bench: Bench, scope: str, scenario: str | None = None) -> list[BenchResult]:
    """The results of a scope, ours first."""
    results = [r for r in bench.results if r.scope == scope and scenario in (None, r.scenario)]
    return sorted(results, key=lambda result: not is_ours(result, results))


def is_ours(result: BenchResult, among: Sequence[BenchResult]) -> bool:
    """Whether a result is our own; where none bears a name, the first of its scope is."""
    return result.contender == OURS or (all(other.contender is None for other in among) and result is among[0])


def label_of(result: BenchResult) -> str:
    """What a contender is called."""
    return result.contender or f"{result.runtime} {result.precision}".strip() or NOTHING


def ratio_against(ratios: Sequence[Ratio], scope: str, name: str) -> Ratio | None:
    """The paired ratio against a peer in a scope."""
    return next((ratio for ratio in ratios if (ratio.scope, ratio.against) == (scope, name)), None)


def _table(scenario: str, scope: str, results: Sequence[BenchResult], ratios: Sequence[Ratio]) -> ScopeTable:
    title, meaning = _SCOPES.get(scope, (scope, ""))
    slowest = max((r.latency_ms.p50 for r in results if known(r.latency_ms.p50)), default=0.0)
    shapes = {_shape(result) for result in results}
    own = next((r for r in results if is_ours(r, results)), None)
    return ScopeTable(
        title=title,
        meaning=meaning,
        scenario=scenario,
        input=next(iter(shapes)) if len(shapes) == 1 else "",
        rows=tuple(
            _row(r, is_ours(r, results), slowest, ratios, _shape(r) if len(shapes) > 1 else "") for r in results
        ),
        stages=tuple((name, milliseconds(value)) for name, value in ((own and own.stages_ms) or {}).items()),
    )


def _row(result: BenchResult, ours: bool, slowest: float, ratios: Sequence[Ratio], shape: str) -> LatencyRow:
    latency = result.latency_ms
    ratio = None if ours else ratio_against(ratios, result.scope, label_of(result))
    return LatencyRow(
        name=label_of(result),
        ours=ours,
        how=_how(result, shape),
        queries=count(result.queries),
        p50=_bar(latency.p50, slowest),
        p90=milliseconds(latency.p90),
        p99=milliseconds(latency.p99),
        throughput=milliseconds(result.throughput_per_s),
        ratio=times(ratio.median) if ratio else NOTHING,
        spread=f"{times(ratio.p10)} … {times(ratio.p90)}"
        if ratio and known(ratio.p10) and known(ratio.p90)
        else NOTHING,
    )


def _bar(p50: Figure, slowest: float) -> Bar:
    return Bar(milliseconds(p50), 100 * p50 / slowest if known(p50) and slowest > 0 else 0.0)


def _how(result: BenchResult, shape: str) -> str:
    """What ran, where, and on which input where contenders differ in it."""
    provider = (result.provider or "").removesuffix("ExecutionProvider")
    return ", ".join(part for part in (result.runtime, result.precision, provider, shape) if part)


def _shape(result: BenchResult) -> str:
    size = "×".join(str(side) for side in result.resolution) if result.resolution else ""
    batch = f"batch {result.batch}" if result.batch else ""
    return ", ".join(part for part in (size, batch) if part)
