"""The top of the page: the gate's verdict in one sentence and the figures that a reader came for."""

from __future__ import annotations

from dataclasses import dataclass

from dropclass_deploy.analysis.report.class_table import selected_head
from dropclass_deploy.analysis.report.formats import NOTHING, count, known, milliseconds, percent, points, times
from dropclass_deploy.analysis.report.latency_table import is_ours, label_of, ratio_against, results_of
from dropclass_deploy.analysis.report.records import Bench, BenchResult, Evaluation, Parity
from dropclass_deploy.analysis.report.sources import Sources
from dropclass_deploy.analysis.report.verdicts import Badge, badge

NAIVE = "naive"


@dataclass(frozen=True)
class Tile:
    """One key figure: what it is, the figure, its unit, and the words that put it in its place."""

    label: str
    figure: str
    unit: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The verdict and the key figures."""

    verdict: Badge
    sentence: str
    tiles: tuple[Tile, ...]


def headline(sources: Sources) -> Headline:
    """The top of the page from whatever was measured."""
    return Headline(
        verdict=badge(sources.parity.verdict if sources.parity else None),
        sentence=_sentence(sources.parity),
        tiles=(*_accuracy(sources.evaluation), _worst_change(sources.parity), *_speed(sources.bench)),
    )


def summary(sources: Sources) -> tuple[str, ...]:
    """What the page is about, in a few words each."""
    model, evaluation = sources.model, sources.evaluation
    parts = (
        model.name if model else "",
        f"method {model.method}" if model and model.method else "",
        f"data {evaluation.data}" if evaluation and evaluation.data else "",
        f"{count(model.steps)} steps" if model and model.steps is not None else "",
        f"artifact “{sources.artifact}”",
    )
    return tuple(part for part in parts if part)


def _sentence(parity: Parity | None) -> str:
    if parity is None:
        return "Whether the exported model does what the trained one did has not been measured."
    if parity.verdict == "pass":
        return f"The exported model does what the trained one did: {_kept(parity)}."
    if parity.verdict == "fail":
        return f"The exported model does not do what the trained one did{_named(parity, 'fail')}."
    if parity.verdict == "insufficient":
        return f"There is too little evidence to say that nothing was lost{_named(parity, 'insufficient')}."
    return "The gate gave a verdict that this page does not know."


def _kept(parity: Parity) -> str:
    """How many classes passed, and which were let through without enough evidence."""
    passed = sum(entry.verdict == "pass" for entry in parity.classes)
    present = sum(entry.verdict != "absent" for entry in parity.classes)
    who = (
        f"each of the {passed} classes that occur keeps its"
        if passed == present
        else f"{passed} of {present} classes keep their"
    )
    allowed = _named(parity, "insufficient")
    unsure = f"; too little evidence, allowed by name{allowed}" if allowed else ""
    return f"{who} IoU within the margin{unsure}"


def _named(parity: Parity, verdict: str) -> str:
    names = [entry.name for entry in parity.classes if entry.verdict == verdict]
    return f": {', '.join(names)}" if names else ""


def _accuracy(evaluation: Evaluation | None) -> tuple[Tile, Tile]:
    head = selected_head(evaluation) if evaluation else None
    if evaluation is None or head is None:
        return Tile("mIoU", NOTHING, "", "not measured"), Tile("mIoU, rare classes", NOTHING, "", "not measured")
    others = [(f"{name} head", scores) for name, scores in evaluation.heads.items() if scores is not head]
    others += [
        (split.split, split.heads[evaluation.selected])
        for split in evaluation.extra
        if evaluation.selected in split.heads
    ]
    rare = sum(entry.rare for entry in head.classes)
    images = f", {count(evaluation.images)} images" if evaluation.images else ""
    return (
        Tile(
            "mIoU",
            percent(head.miou),
            "%",
            f"split {evaluation.split}{images}"
            + "".join(f"; {name} {percent(scores.miou)}" for name, scores in others),
        ),
        Tile(
            "mIoU, rare classes",
            percent(head.rare_miou),
            "%",
            f"the {rare} rarest of {len(head.classes)} classes"
            + "".join(f"; {name} {percent(scores.rare_miou)}" for name, scores in others),
        ),
    )


def _worst_change(parity: Parity | None) -> Tile:
    """The class that lost most by the export."""
    label = "Worst class after export"
    changes = [(entry.delta, entry) for entry in parity.classes if known(entry.delta)] if parity else []
    if not changes:
        return Tile(label, NOTHING, "", "not measured")
    delta, entry = min(changes, key=lambda change: change[0])
    margin = f", margin {100 * entry.margin:.2g}" if known(entry.margin) else ""
    unchanged = all(change == 0 for change, _ in changes)
    what = f"no class changed{margin}" if unchanged else f"change of IoU, {entry.name}{margin}"
    return Tile(label, points(delta), "points", what)


def _speed(bench: Bench | None) -> tuple[Tile, Tile]:
    ours, naive = _pair(bench)
    scope = ours.scope.replace("_", " ") if ours else ""
    if bench is None or ours is None or not known(ours.latency_ms.p50):
        return Tile("Median latency", NOTHING, "", "not measured"), Tile("Against naive", NOTHING, "", "not measured")
    p50 = milliseconds(ours.latency_ms.p50)
    if naive is None:
        return Tile("Median latency", p50, "ms", scope), Tile("Against naive", NOTHING, "", "not measured")
    other = milliseconds(naive.latency_ms.p50)
    ratio = ratio_against(bench.ratios, ours.scope, label_of(naive))
    spread = f"paired rounds, {times(ratio.p10)} … {times(ratio.p90)}" if ratio else "paired ratio not measured"
    return (
        Tile("Median latency", p50, "ms", f"{scope}; naive export {other} ms"),
        Tile("Naive ÷ ours", times(ratio.median if ratio else None), "", spread),
    )


def _pair(bench: Bench | None) -> tuple[BenchResult | None, BenchResult | None]:
    """Ours and the naive path in the widest scope that was timed."""
    for scope in ("end_to_end", "transfer", "model"):
        results = results_of(bench, scope) if bench else []
        ours = next((result for result in results if is_ours(result, results)), None)
        if ours is not None:
            return ours, next((result for result in results if NAIVE in label_of(result).lower()), None)
    return None, None
