"""The training curves: loss terms, mIoU and rare mIoU, and the IoU of the rare classes, over the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dropclass_deploy.analysis.report.chart_svg import DASHES, MAX_LINES, Line, draw_lines
from dropclass_deploy.analysis.report.class_looks import ClassLook
from dropclass_deploy.analysis.report.formats import known, percent
from dropclass_deploy.analysis.report.records import Figure, TrainPoint, ValPoint
from dropclass_deploy.analysis.report.sources import Sources

# Numbers of a "train" line that are no loss term.
_BOOKKEEPING = {"step", "progress", "lr", "dropped", "images_per_s", "data_share", "memory_gib", "epoch"}
_TERM_NAMES = {"loss": "total", "ce": "cross-entropy", "ce_drop": "cross-entropy, class dropped"}
Named = tuple[str, tuple[tuple[float, float], ...]]


@dataclass(frozen=True)
class Key:
    """A line of the legend: its sample (chart colour and dash pattern), its name, and its last value."""

    index: int
    dash: str
    label: str
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart and the words around it; ``svg`` is made of numbers only."""

    title: str
    unit: str
    svg: str
    keys: tuple[Key, ...]
    description: str
    left_out: int


def training_curves(sources: Sources, looks: Sequence[ClassLook]) -> tuple[Chart, ...]:
    """Every chart that the run has points for.

    Raises:
        MissingExtraError: when matplotlib is not installed.
    """
    val = _with_final(sources)
    rare = [look.name for look in looks if look.rare]
    charts = (
        _chart("Loss terms", "", _loss_lines(sources.train), "{:.3f}".format),
        _chart("Validation IoU", "%", _miou_lines(val), _as_percent),
        _chart("IoU of the rare classes", "%", _class_lines(val, rare), _as_percent),
    )
    return tuple(chart for chart in charts if chart is not None)


def _with_final(sources: Sources) -> tuple[ValPoint, ...]:
    """The validations on the way and, as the last one, the plain head's evaluation after training."""
    head = sources.evaluation.heads.get("plain") if sources.evaluation else None
    steps = sources.model.steps if sources.model else None
    if head is None or steps is None or any(point.step >= steps for point in sources.val):
        return sources.val
    iou = {entry.name: entry.iou for entry in head.classes}
    return (*sources.val, ValPoint(step=steps, miou=head.miou, rare_miou=head.rare_miou, iou=iou))


def _loss_lines(train: Sequence[TrainPoint]) -> list[Named]:
    # First seen, first drawn: the total and the terms keep the order in which training wrote them.
    terms = dict.fromkeys(name for point in train for name in _terms(point))
    return [
        (_TERM_NAMES.get(term, term.replace("_", " ")), _points((p.step, _terms(p).get(term)) for p in train))
        for term in terms
    ]


def _terms(point: TrainPoint) -> dict[str, float]:
    extra = point.model_extra or {}
    return {
        name: value
        for name, value in extra.items()
        if name not in _BOOKKEEPING and isinstance(value, float | int) and not isinstance(value, bool)
    }


def _miou_lines(val: Sequence[ValPoint]) -> list[Named]:
    return [
        ("mIoU, all classes", _points((p.step, _hundred(p.miou)) for p in val)),
        ("mIoU, rare classes", _points((p.step, _hundred(p.rare_miou)) for p in val)),
    ]


def _class_lines(val: Sequence[ValPoint], names: Sequence[str]) -> list[Named]:
    return [(name, _points((p.step, _hundred(p.iou.get(name))) for p in val)) for name in names]


def _hundred(value: Figure) -> Figure:
    return None if value is None else 100 * value


def _points(pairs: Iterable[tuple[int, Figure]]) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in pairs if known(y))


def _as_percent(value: float) -> str:
    return f"{percent(value / 100)} %"


def _chart(title: str, unit: str, named: Sequence[Named], show: Callable[[float], str]) -> Chart | None:
    """The chart of the lines that have points; None when there is none."""
    full = [(label, points) for label, points in named if points]
    shown = full[:MAX_LINES]
    if not shown:
        return None
    return Chart(
        title=title,
        unit=unit,
        svg=draw_lines([Line(points) for _, points in shown], salt=title),
        keys=tuple(_key(index, label, points, show) for index, (label, points) in enumerate(shown)),
        description=f"{title} over the training steps. " + " ".join(_sentence(*entry, show) for entry in shown),
        left_out=len(full) - len(shown),
    )


def _key(index: int, label: str, points: tuple[tuple[float, float], ...], show: Callable[[float], str]) -> Key:
    dash = " ".join(f"{length * 1.4:g}" for length in DASHES[index])
    return Key(index=index, dash=dash, label=label, last=show(points[-1][1]))


def _sentence(label: str, points: tuple[tuple[float, float], ...], show: Callable[[float], str]) -> str:
    first, last = points[0], points[-1]
    return f"{label}: from {show(first[1])} at step {first[0]:.0f} to {show(last[1])} at step {last[0]:.0f}."
