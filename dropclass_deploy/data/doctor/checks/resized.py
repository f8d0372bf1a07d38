"""Masks that were resized or smoothed like photographs: values between two classes at every border."""

from __future__ import annotations

from dropclass_deploy.data.doctor.edges import SUSPECT_FILES, SUSPECT_SHARE
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.findings import Finding, about, agree, masks_hold, names, plural, share
from dropclass_deploy.data.doctor.raw_values import RawValues

# Fewer unknown values are told one by one: somebody drew them.
_MANY = 3
_REMEDY = (
    "resize masks with nearest-neighbour interpolation only and draw them without anti-aliasing: export them again from "
    "the original labels; the lost borders cannot be computed back"
)


def looks_interpolated(values: RawValues) -> bool:
    """Whether enough masks have borders as interpolation makes them."""
    return values.suspect_share() >= SUSPECT_FILES


def stray_values(evidence: Evidence, values: RawValues) -> Finding | None:
    """Many unknown values, in masks whose borders look interpolated."""
    if len(values.unknown) < _MANY or not set(values.unknown_files) & set(values.suspect_files):
        return None
    strays = values.count(values.unknown)
    return about(
        evidence,
        values.unknown_files,
        "values-interpolated",
        "error",
        f"{masks_hold(len(values.unknown_files))} {len(values.unknown)} values that belong to no class "
        f"({min(values.unknown)} to {max(values.unknown)}) on {share(strays, values.total)} of all pixels, lying between "
        f"their neighbours as resizing or anti-aliasing leaves them ({names(values.unknown_files)})",
        expected="ids of classes only",
        remedy=_REMEDY,
    )


def interpolated_ids(evidence: Evidence, values: RawValues) -> Finding | None:
    """Values that are all classes, at borders that look interpolated."""
    if not looks_interpolated(values):
        return None
    files = values.suspect_files
    looks = agree(len(files), "looks", "look")
    borders = sum(values.masks[path].border_pixels for path in files)
    between = sum(values.masks[path].between_pixels for path in files)
    return about(
        evidence,
        files,
        "ids-interpolated",
        "warning",
        f"{plural(len(files), 'mask')} of {len(values.masks):,} {looks} resized or smoothed like photographs: on "
        f"{share(between, borders)} of their border pixels the id lies between its two neighbours ({names(files)})",
        expected=f"at most {SUSPECT_SHARE:.0%}".replace("%", " %") + " in labels that were drawn",
        remedy=_REMEDY,
    )
