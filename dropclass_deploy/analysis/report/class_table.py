"""The per-class table of the evaluation, and the summary of every split and deploy head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dropclass_deploy.analysis.report.class_looks import ClassLook
from dropclass_deploy.analysis.report.formats import Bar, count, known, percent
from dropclass_deploy.analysis.report.records import Evaluation, Figure, HeadScores, SplitScores


@dataclass(frozen=True)
class ClassRow:
    """One class: its share of the training pixels, then one IoU a column, then the selected head's other figures."""

    look: ClassLook
    share: Bar
    iou: tuple[Bar, ...]
    precision: str
    recall: str
    pixels: str


@dataclass(frozen=True)
class SummaryRow:
    """One deploy head on one split."""

    split: str
    images: str
    head: str
    selected: bool
    miou: str
    rare_miou: str
    pixel_accuracy: str
    worst: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class ClassTablePart:
    """Both tables; ``columns`` names the IoU columns (head and split)."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[ClassRow, ...]
    summary: tuple[SummaryRow, ...]
    selected: str
    split: str


def class_table(evaluation: Evaluation | None, looks: Sequence[ClassLook]) -> ClassTablePart | None:
    """The tables of an evaluation, or None when there is none."""
    if evaluation is None or not evaluation.heads:
        return None
    chosen = selected_head(evaluation) or HeadScores()
    looks = looks or tuple(ClassLook(entry.name, "transparent", entry.rare) for entry in chosen.classes)
    columns = _columns(evaluation)
    # Shares span orders of magnitude: the longest bar is the most frequent class.
    largest = max((look.share or 0.0 for look in looks), default=0.0)
    return ClassTablePart(
        columns=tuple((head, split.split) for split, head in columns),
        rows=tuple(_row(look, columns, chosen, largest) for look in looks),
        summary=tuple(
            _summary(split, head, evaluation.selected) for split in _splits(evaluation) for head in split.heads
        ),
        selected=evaluation.selected,
        split=evaluation.split,
    )


def selected_head(evaluation: Evaluation) -> HeadScores | None:
    """The scores of the head that is deployed, else of the first one there is."""
    return evaluation.heads.get(evaluation.selected) or next(iter(evaluation.heads.values()), None)


def _splits(evaluation: Evaluation) -> tuple[SplitScores, ...]:
    return (evaluation, *evaluation.extra)


def _columns(evaluation: Evaluation) -> list[tuple[SplitScores, str]]:
    """Every head on the main split, then the selected one on the others."""
    main = [(evaluation, head) for head in evaluation.heads]
    return main + [(split, evaluation.selected) for split in evaluation.extra if evaluation.selected in split.heads]


def _row(look: ClassLook, columns: Sequence[tuple[SplitScores, str]], chosen: HeadScores, largest: float) -> ClassRow:
    scores = chosen.of(look.name)
    return ClassRow(
        look=look,
        share=Bar(percent(look.share, 2), 100 * (look.share or 0.0) / largest if largest else 0.0),
        iou=tuple(_bar(split.heads[head].of(look.name).iou) for split, head in columns),
        precision=percent(scores.precision),
        recall=percent(scores.recall),
        pixels=count(scores.pixels),
    )


def _bar(value: Figure) -> Bar:
    return Bar(percent(value), min(100.0, max(0.0, 100 * value)) if known(value) else 0.0)


def _summary(split: SplitScores, head: str, selected: str) -> SummaryRow:
    scores = split.heads[head]
    worst = percent(scores.worst_class_precision)
    return SummaryRow(
        split=split.split,
        images=count(split.images),
        head=head,
        selected=head == selected,
        miou=percent(scores.miou),
        rare_miou=percent(scores.rare_miou),
        pixel_accuracy=percent(scores.pixel_accuracy),
        worst=f"{worst} ({scores.worst_precision_class})" if scores.worst_precision_class else worst,
        left_out=scores.left_out,
    )
