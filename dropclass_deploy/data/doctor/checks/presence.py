"""Classes and labels that a split does not have."""

from __future__ import annotations

from collections.abc import Iterator

from dropclass_deploy.core.classes import IGNORE_INDEX, ClassTable
from dropclass_deploy.data.doctor.checks.shifted import is_black_and_white
from dropclass_deploy.data.doctor.counts import count_split
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding, about, agree, names, plural
from dropclass_deploy.data.doctor.raw_values import RawValues
from dropclass_deploy.data.statistics import ClassStatistics

_LISTED = 8


def check_presence(evidence: Evidence) -> Iterator[Finding]:
    """Only where every value has a meaning: absence follows from any error in the values."""
    classes, values = evidence.layout.classes, RawValues.of(evidence)
    readable = len(values.masks) == len(evidence.masks)
    if classes is None or not readable or values.unknown or is_black_and_white(values):
        return
    yield from _unlabelled(evidence, values)
    for split in evidence.splits:
        finding = absent_classes(split, classes, count_split(evidence, split))
        if finding is not None:
            yield finding


def absent_classes(split: str, classes: ClassTable, stats: ClassStatistics) -> Finding | None:
    """A warning that names the classes without a pixel in a split; None when there are none, or no pixel at all."""
    absent = [name for name, pixels in zip(classes.names, stats.pixels, strict=True) if not pixels]
    if not absent or not stats.pixels.any():
        return None
    listed = ", ".join(absent[:_LISTED]) + (f" and {len(absent) - _LISTED} more" if len(absent) > _LISTED else "")
    verb = agree(len(absent), "occurs", "occur")
    consequence = "cannot be learnt" if split.startswith("train") else "cannot be judged"
    return Finding(
        "class-absent",
        "warning",
        f"{listed} never {verb} in the {plural(stats.num_images, 'mask')} of {split}: what never occurs {consequence}",
        expected="every class in every split",
        remedy="check the raw values in the class table, or move images that show it to this split",
        split=split,
    )


def _unlabelled(evidence: Evidence, values: RawValues) -> Iterator[Finding]:
    ignored = {value for value, index in values.known.items() if index == IGNORE_INDEX}
    empty = [path for path, facts in values.masks.items() if {value for value, _ in facts.values} <= ignored]
    if empty:
        yield about(
            evidence,
            empty,
            "mask-unlabelled",
            "warning",
            f"{plural(len(empty), 'mask')} of {len(values.masks):,} without any labelled pixel ({names(empty)})",
            expected="at least one pixel of a class",
            remedy="leave these images out, or label them: they teach nothing",
        )
