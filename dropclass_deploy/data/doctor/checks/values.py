"""Masks whose pixels do not mean what the class table says.

A data set has one story: the first explanation that fits the unknown values is told, not one line for each value.
"""

from __future__ import annotations

from collections.abc import Iterator

from dropclass_deploy.data.doctor.checks.colours import colour_masks, grey_palette
from dropclass_deploy.data.doctor.checks.resized import interpolated_ids, stray_values
from dropclass_deploy.data.doctor.checks.shifted import objects_as_ignore, off_by_one
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.facts import MAX_VALUES
from dropclass_deploy.data.doctor.findings import Finding, about, masks_hold, names, plural
from dropclass_deploy.data.doctor.raw_values import RawValues
from dropclass_deploy.data.folder import missing_classes

_LISTED = 4


def check_values(evidence: Evidence) -> Iterator[Finding]:
    """Masks of colours, then the raw values of the others against the class table."""
    coloured = colour_masks(evidence)
    if coloured is not None:
        yield coloured
    values = RawValues.of(evidence)
    if evidence.layout.labels is None:
        yield _no_table(evidence)
    elif (explained := _explain(evidence, values)) is not None:
        yield explained


def _no_table(evidence: Evidence) -> Finding:
    error = missing_classes(evidence.layout.place)
    return Finding("class-table-missing", "error", error.found, error.expected, error.remedy)


def _explain(evidence: Evidence, values: RawValues) -> Finding | None:
    """The first explanation that fits."""
    explanations = (
        objects_as_ignore,
        _too_many,
        off_by_one,
        grey_palette,
        stray_values,
        _unknown,
        interpolated_ids,
    )
    return next((found for explain in explanations if (found := explain(evidence, values)) is not None), None)


def _too_many(evidence: Evidence, values: RawValues) -> Finding | None:
    """Files whose values are not even listed: instance ids, depth or a photograph."""
    files = [path for path, facts in values.masks.items() if facts.distinct > MAX_VALUES]
    if not files:
        return None
    most = max(values.masks[path].distinct for path in files)
    return about(
        evidence,
        files,
        "values-too-many",
        "error",
        f"{masks_hold(len(files))} up to {most:,} different values ({names(files)})",
        expected=f"ids of classes, at most {MAX_VALUES} values a mask; instance ids, depths and pictures are none",
        remedy="export masks of class ids",
    )


def _unknown(evidence: Evidence, values: RawValues) -> Finding | None:
    """Values that belong to no class, without a better explanation."""
    if not values.unknown:
        return None
    listed = "; ".join(_value(values, value) for value in values.unknown[:_LISTED])
    more = f"; and {len(values.unknown) - _LISTED} values more" if len(values.unknown) > _LISTED else ""
    return about(
        evidence,
        values.unknown_files,
        "values-unknown",
        "error",
        f"{masks_hold(len(values.unknown_files), len(values.masks))} values that belong to no class: {listed}{more}",
        expected=f"one of the raw values {ranges(set(values.known))}",
        remedy="add them to the class table (values of a class, or ignore), or correct the masks; "
        f"dropclass check-data {evidence.layout.spec} --fix-map proposes a table",
    )


def _value(values: RawValues, value: int) -> str:
    files = values.files[value]
    return f"{value} ({plural(values.pixels[value], 'pixel')} in {plural(len(files), 'mask')}: {names(files)})"


def ranges(numbers: set[int], shown: int = 12) -> str:
    """Runs as ranges: "0–11, 255"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(low) if low == high else f"{low}–{high}" for low, high in runs]
    return ", ".join(texts[:shown]) + (" …" if len(texts) > shown else "")
