"""The parity gate's table: each class before and after export, its difference against its margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dropclass_deploy.analysis.report.class_looks import ClassLook
from dropclass_deploy.analysis.report.formats import NOTHING, count, known, per_million, percent, points
from dropclass_deploy.analysis.report.records import Figure, Parity, ParityClass
from dropclass_deploy.analysis.report.verdicts import Badge, badge

ONE_SIDED_RULE = "non-inferiority"
_HALF_WIDTH = 50.0
"""The drawn interval runs from −50 to 50 in its own units."""

_UNKNOWN_COLOUR = "transparent"


@dataclass(frozen=True)
class Interval:
    """A difference drawn on one scale for all classes: 0 in the middle, ±50 at the ends.

    Attributes:
        centre: of ΔIoU.
        low: end of the interval; the centre when there is none.
        high: the other end.
        band_low: where the band that the margin allows begins.
        band_high: where it ends; a rule that only asks for "not worse" has no upper end.
        style: CSS class of the verdict.
    """

    centre: float
    low: float
    high: float
    band_low: float
    band_high: float
    style: str


@dataclass(frozen=True)
class ParityRow:
    """One class of the gate."""

    look: ClassLook
    reference: str
    candidate: str
    delta: str
    interval: str
    drawing: Interval | None
    margin: str
    images: str
    pixels: str
    verdict: Badge


@dataclass(frozen=True)
class ParityPart:
    """The whole section."""

    verdict: Badge
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    rows: tuple[ParityRow, ...]
    means: tuple[tuple[str, str, str, str], ...]


def parity_table(parity: Parity | None, looks: Sequence[ClassLook]) -> ParityPart | None:
    """The section, or None when the gate has not run; classes in the order of ``looks``."""
    if parity is None:
        return None
    by_name = {look.name: look for look in looks}
    order = {name: place for place, name in enumerate(by_name)}
    classes = sorted(parity.classes, key=lambda entry: order.get(entry.name, len(order)))
    span = _span(parity.classes)
    one_sided = parity.rule == ONE_SIDED_RULE
    return ParityPart(
        verdict=badge(parity.verdict),
        reasons=parity.reasons,
        notes=parity.notes,
        facts=_facts(parity),
        rows=tuple(_row(entry, by_name, span, one_sided) for entry in classes),
        means=tuple(
            (
                label,
                percent(pair.reference, 2),
                percent(pair.candidate, 2),
                points(_difference(pair.reference, pair.candidate)),
            )
            for label, pair in (("mIoU", parity.miou), ("mIoU, rare classes", parity.rare_miou))
        ),
    )


def _difference(reference: Figure, candidate: Figure) -> Figure:
    return candidate - reference if known(reference) and known(candidate) else None


def _facts(parity: Parity) -> tuple[tuple[str, str], ...]:
    images = NOTHING if parity.images is None else f"{count(parity.images)} of split {parity.split or NOTHING}"
    facts = (
        ("Rule", (parity.rule or NOTHING).replace("_", " ")),
        ("Images", images),
        ("Pixels that differ", per_million(parity.pixel_disagreement)),
        ("Runs on", f"{parity.provider or NOTHING}, {parity.precision or NOTHING}"),
    )
    return tuple(facts)


def _row(entry: ParityClass, looks: Mapping[str, ClassLook], span: float, one_sided: bool) -> ParityRow:
    low, high = entry.interval or (None, None)
    return ParityRow(
        look=looks.get(entry.name, ClassLook(entry.name, _UNKNOWN_COLOUR, entry.rare)),
        reference=percent(entry.iou_reference, 2),
        candidate=percent(entry.iou_candidate, 2),
        delta=points(entry.delta),
        interval=f"{points(low)} … {points(high)}" if known(low) and known(high) else NOTHING,
        drawing=_drawing(entry, span, one_sided),
        margin=NOTHING if entry.margin is None else f"{100 * entry.margin:.2g}",
        images=count(entry.images),
        pixels=count(entry.pixels),
        verdict=badge(entry.verdict),
    )


def _span(classes: Sequence[ParityClass]) -> float:
    """Half-width of the common scale: room for every margin, difference and interval."""
    values = [value for entry in classes for value in (entry.margin, entry.delta, *(entry.interval or ()))]
    return 1.1 * max((abs(value) for value in values if known(value)), default=0.0) or 1.0


def _drawing(entry: ParityClass, span: float, one_sided: bool) -> Interval | None:
    if not known(entry.delta):
        return None
    low, high = entry.interval or (None, None)
    centre = _HALF_WIDTH * entry.delta / span
    margin = _HALF_WIDTH * entry.margin / span if known(entry.margin) else 0.0
    return Interval(
        centre=centre,
        low=_HALF_WIDTH * low / span if known(low) else centre,
        high=_HALF_WIDTH * high / span if known(high) else centre,
        band_low=-margin,
        band_high=_HALF_WIDTH if one_sided else margin,
        style=badge(entry.verdict).style,
    )
