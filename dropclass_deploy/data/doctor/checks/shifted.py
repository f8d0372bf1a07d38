"""Masks whose values are regular and mean something else than the class table says: 0/255, and ids moved by one."""

from __future__ import annotations

from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding, about, masks_hold, names
from dropclass_deploy.data.doctor.raw_values import RawValues

WHITE = 255


def is_black_and_white(values: RawValues) -> bool:
    """Whether the masks hold 0 and 255, nothing else, and 255 is not the value of a class."""
    return set(values.pixels) == {0, WHITE} and WHITE not in values.class_values()


def objects_as_ignore(evidence: Evidence, values: RawValues) -> Finding | None:
    """Masks of 0 and 255 under a table that ignores 255: every object would silently be left out."""
    if not is_black_and_white(values):
        return None
    meaning = "is to be ignored" if WHITE in values.known else "has no class"
    files = values.files[WHITE]
    return about(
        evidence,
        files,
        "masks-0-255",
        "error",
        f"all {len(values.masks):,} masks hold only 0 and 255 ({names(files)}), and 255 {meaning} in the class table: "
        "training would see no object",
        expected="a class with the raw value 255",
        remedy="write value: 255 at the object's class and value: 0 at the background's in classes.yaml",
    )


def shift_of(values: RawValues) -> int:
    """How far the ids are moved: 1 when C classes with the values 0 … C−1 meet masks that go up to C, else 0."""
    classes = values.class_values()
    size = len(classes)
    # A 255 is told as "ignore" in the same breath.
    unknown = [value for value in values.unknown if value != WHITE]
    return int(classes == set(range(size)) and unknown == [size])


def off_by_one(evidence: Evidence, values: RawValues) -> Finding | None:
    """Masks of 1 … C, or of 0 … C with an unlabelled 0, under a table of 0 … C−1."""
    if not shift_of(values):
        return None
    size = len(values.class_values())
    has_zero = 0 in values.pixels
    span = f"0 to {size}" if has_zero else f"1 to {size}"
    doubt = " when 0 means unlabelled; when it is a class of its own, name all the classes" if has_zero else ""
    return about(
        evidence,
        values.files[size],
        "labels-off-by-one",
        "error",
        f"{masks_hold(len(values.masks))} the values {span} and the class table 0 to {size - 1}: "
        f"{size} is in no class, and the others would each be learnt as their neighbour",
        expected=f"values from 0 to {size - 1}",
        remedy=f"give the classes the values 1 to {size} in their order and write ignore: [0, 255] in classes.yaml{doubt}",
    )
