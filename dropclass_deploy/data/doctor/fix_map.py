"""A class table to start from or to mend with: text that ``data.classes_yaml`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from dropclass_deploy.core.classes import IGNORE_INDEX, MAX_CLASSES, ClassTable, Colour, default_palette
from dropclass_deploy.data.doctor.checks.colours import colour_counts
from dropclass_deploy.data.doctor.checks.resized import looks_interpolated
from dropclass_deploy.data.doctor.checks.shifted import WHITE, is_black_and_white, shift_of
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.raw_values import RawValues
from dropclass_deploy.data.label_map import MAX_RAW_VALUE

# An unknown value on a smaller share of the pixels, in masks that look interpolated, is a stray and no class.
_STRAY_SHARE = 0.01
_TWO = ("background", "object")


@dataclass
class ProposedClass:
    """A class with its raw values; ``colour`` None until one is chosen."""

    name: str
    values: list[int]
    colour: Colour | None = None


@dataclass
class Proposal:
    """A class table in the making.

    Attributes:
        classes: in id order.
        ignored: raw values that count nowhere.
        remarks: what a reader of the file has to know.
        pixels: number of pixels by raw value, for the comments.
    """

    classes: list[ProposedClass]
    ignored: list[int] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    pixels: dict[int, int] = field(default_factory=dict)


def propose(evidence: Evidence) -> Proposal:
    """The class table that the masks ask for: the present one where it fits, mended where it does not."""
    values, present = RawValues.of(evidence), evidence.layout.classes
    if not values.masks and colour_counts(evidence):
        proposal = _from_colours(evidence)
    elif is_black_and_white(values):
        proposal = _black_and_white(present)
    elif present is not None and shift_of(values):
        proposal = _shifted(present, values)
    else:
        proposal = _merged(present, values)
    proposal.pixels = proposal.pixels or dict(values.pixels)
    _at_least_two(proposal)
    _colour(proposal, _mask_palette(values))
    return proposal


def _black_and_white(present: ClassTable | None) -> Proposal:
    """Background 0, object 255; a present table of two keeps its names and colours."""
    keep = present if present is not None and len(present) == 2 else None
    names = keep.names if keep else _TWO
    colours: tuple[Colour | None, ...] = keep.palette if keep else (None, None)
    pairs = zip(names, (0, WHITE), colours, strict=True)
    return Proposal([ProposedClass(name, [value], colour) for name, value, colour in pairs])


def _shifted(present: ClassTable, values: RawValues) -> Proposal:
    """The same classes one value higher; 0 is unlabelled."""
    rows = enumerate(zip(present.names, present.palette, strict=True), start=1)
    ignored = sorted({0, WHITE} | {value for value, index in values.known.items() if index == IGNORE_INDEX})
    remark = "The values are the present ones moved up by one, and 0 is ignored: check that 0 is no class of its own."
    return Proposal([ProposedClass(name, [value], colour) for value, (name, colour) in rows], ignored, [remark])


def _merged(present: ClassTable | None, values: RawValues) -> Proposal:
    """The present classes, a new class for each unknown value that is no stray."""
    proposal = Proposal(_present_classes(present, values))
    proposal.ignored = [value for value, index in values.known.items() if index == IGNORE_INDEX]
    unknown = sorted(value for value in values.unknown if 0 <= value <= MAX_RAW_VALUE)
    strays = _strays(values, unknown, MAX_CLASSES - len(proposal.classes))
    new = [value for value in unknown if value not in strays]
    two = present is None and len(new) == 2
    taken = {item.name for item in proposal.classes}
    for place, value in enumerate(new):
        name = _TWO[place] if two else _free_name(f"class_{value}", taken)
        taken.add(name)
        proposal.classes.append(ProposedClass(name, [value]))
    proposal.ignored = sorted({*proposal.ignored, *strays})
    if strays - {WHITE}:
        proposal.remarks.append(
            "Strays of resizing or smoothing are ignored here; clean masks from the source are better."
        )
    return proposal


def _present_classes(present: ClassTable | None, values: RawValues) -> list[ProposedClass]:
    if present is None:
        return []
    raw: list[list[int]] = [[] for _ in present.names]
    for value, index in values.known.items():
        if index != IGNORE_INDEX:
            raw[index].append(value)
    return [ProposedClass(*row) for row in zip(present.names, raw, present.palette, strict=True)]


def _strays(values: RawValues, unknown: list[int], room: int) -> set[int]:
    """Unknown values to ignore: rare ones of interpolated masks, a 255 beside small ids, and what exceeds the table."""
    strays = {WHITE} if WHITE in unknown and _is_usual_ignore(values) else set()
    if looks_interpolated(values):
        strays |= {value for value in unknown if values.pixels[value] < _STRAY_SHARE * values.total}
    left = sorted((value for value in unknown if value not in strays), key=lambda value: -values.pixels[value])
    return strays | set(left[max(room, 0) :])


def _is_usual_ignore(values: RawValues) -> bool:
    """Whether 255 stands beside small ids (0, 1, 2 …: it means "ignore"), not beside values spread out like 0, 128."""
    others = [value for value in values.pixels if value != WHITE]
    return bool(others) and max(others) < 2 * len(others)


def _from_colours(evidence: Evidence) -> Proposal:
    """One class a colour; a reader needs ids, so that the file serves once the masks are converted."""
    counts, present = colour_counts(evidence).most_common(MAX_CLASSES), evidence.layout.classes
    known = dict(zip(present.palette, present.names, strict=True)) if present is not None else {}
    taken: set[str] = set()
    classes = []
    for value, (colour, _) in enumerate(counts):
        name = _free_name(known.get(colour, "colour_{:02x}{:02x}{:02x}".format(*colour)), taken)
        taken.add(name)
        classes.append(ProposedClass(name, [value], colour))
    remark = (
        "The masks hold colours, which no class table can read: write the value of each colour's line into 8-bit PNGs."
    )
    return Proposal(classes, [], [remark], {value: pixels for value, (_, pixels) in enumerate(counts)})


def _at_least_two(proposal: Proposal) -> None:
    """A class table has two classes at least: one that does not occur yet is added."""
    used = {value for item in proposal.classes for value in item.values} | set(proposal.ignored)
    taken = {item.name for item in proposal.classes}
    while len(proposal.classes) < 2:
        value = next(number for number in count() if number not in used)
        name = _free_name(_TWO[min(value, 1)], taken)
        used.add(value)
        taken.add(name)
        proposal.classes.append(ProposedClass(name, [value]))


def _free_name(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _mask_palette(values: RawValues) -> dict[int, Colour]:
    """Colours that the mask files themselves give their values; none when the palette is a ramp of greys."""
    palette: dict[int, Colour] = {}
    for facts in values.masks.values():
        palette = {**facts.palette, **palette}
    coloured = any(len(set(colour)) > 1 for colour in palette.values())
    return palette if coloured else {}


def _colour(proposal: Proposal, palette: dict[int, Colour]) -> None:
    """A colour for every class without one: a class table wants all or none."""
    for item, fallback in zip(proposal.classes, default_palette(len(proposal.classes)), strict=True):
        if item.colour is None:
            item.colour = palette.get(item.values[0], fallback)
