"""Palettes lost on the way: masks that hold colours, or the grey of colours, instead of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dropclass_deploy.core.classes import ClassTable, Colour
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.facts import MAX_VALUES
from dropclass_deploy.data.doctor.findings import Finding, about, masks_hold, names, plural
from dropclass_deploy.data.doctor.raw_values import RawValues

# Chance that values fall on greys of the palette by accident, above which nothing is concluded.
_CHANCE = 0.05


def colour_counts(evidence: Evidence) -> Counter[Colour]:
    """Pixels of each colour over all masks that hold colours."""
    counts: Counter[Colour] = Counter()
    for facts in evidence.masks.values():
        counts.update(dict(facts.colours))
    return counts


def colour_masks(evidence: Evidence) -> Finding | None:
    """Masks with several channels."""
    files = [path for path, facts in evidence.masks.items() if facts.colours]
    if not files:
        return None
    counts = colour_counts(evidence)
    modes = "/".join(sorted({evidence.masks[path].mode for path in files}))
    capped = any(evidence.masks[path].distinct_colours > MAX_VALUES for path in files)
    number = f"{'over ' if capped else ''}{plural(len(counts), 'colour')}"
    found = f"{masks_hold(len(files))} colours, not ids ({modes}, {number}: {names(files)})"
    return about(
        evidence,
        files,
        "masks-are-colours",
        "error",
        f"{found}; {_whose(counts, evidence.layout.classes)}",
        expected="single-channel masks whose values are ids",
        remedy=_remedy(counts),
    )


def _whose(counts: Counter[Colour], classes: ClassTable | None) -> str:
    """Whether the colours are those of the class table."""
    if _all_grey(counts):
        return "their channels are equal"
    if classes is None:
        return "there is no class table to compare them with"
    strange = [colour for colour in counts if colour not in classes.palette]
    if not strange:
        return "all are colours of the class table"
    named = len(counts) - len(strange)
    return f"{named} of them in the class table, {len(strange)} not, such as {list(strange[0])}"


def _remedy(counts: Counter[Colour]) -> str:
    if _all_grey(counts):
        return "save one of the equal channels as an 8-bit greyscale PNG"
    return (
        "export the masks as ids, or as palette PNGs (a reader that turned the palette into RGB made these); from colours, "
        "write each colour's class id into an 8-bit PNG"
    )


def _all_grey(colours: Iterable[Colour]) -> bool:
    return all(red == green == blue for red, green, blue in colours)


def luminance(colour: Colour) -> int:
    """The grey that Pillow's convert("L") gives for a colour (ITU-R 601-2 weights in 16-bit fixed point)."""
    red, green, blue = colour
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def grey_palette(evidence: Evidence, values: RawValues) -> Finding | None:
    """Unknown values that are the greys of the class colours: a palette mask that was read as a grey picture."""
    classes = evidence.layout.classes
    if classes is None or not values.unknown:
        return None
    greys = {luminance(colour): name for colour, name in zip(classes.palette, classes.names, strict=True)}
    if any(value not in greys for value in values.unknown) or (len(greys) / 256) ** len(values.unknown) > _CHANCE:
        return None
    examples = ", ".join(f"{value} is the grey of {greys[value]!r}" for value in values.unknown[:3])
    return about(
        evidence,
        values.unknown_files,
        "palette-read-as-grey",
        "error",
        f"{masks_hold(len(values.unknown_files))} the greys of the class colours instead of ids ({examples}: "
        f"{names(values.unknown_files)})",
        expected="the palette's indices",
        remedy="save the masks again from the palette PNGs without converting them to greyscale",
    )
