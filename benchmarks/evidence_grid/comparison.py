"""A cell as it is stored beside the same cell run again."""

from __future__ import annotations

from collections.abc import Iterator

from dropclass_deploy.core.metrics import percent
from evidence_grid.data_facts import differences
from evidence_grid.store import Stored


def side_by_side(stored: Stored | None, new: Stored) -> str:
    """Every mIoU, rare mIoU and class IoU in %, stored, new and their difference in points."""
    before = {} if stored is None else dict(_figures(stored))
    rows = [("", "stored", "new", "difference")]
    for name, value in _figures(new):
        old = before.get(name)
        difference = "–" if old is None or value is None else f"{100 * (value - old):+.2f}"
        rows.append((name, percent(old, 2), percent(value, 2), difference))
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}  {a:>8}  {b:>8}  {difference:>10}" for name, a, b, difference in rows]
    return "\n".join([*_differing(stored, new), *lines])


def _figures(cell: Stored) -> Iterator[tuple[str, float | None]]:
    for split, heads in cell["splits"].items():
        for head, figures in heads.items():
            where = f"{split}, {head}: "
            yield where + "mIoU", figures["miou"]
            yield where + "rare mIoU", figures["rare_miou"]
            yield from ((where + row["name"], row["iou"]) for row in figures["classes"])


def _differing(stored: Stored | None, new: Stored) -> list[str]:
    """What else is not the same, and may be why figures differ."""
    if stored is None:
        return ["nothing is stored of this cell"]
    keys = ("recipe_sha256", "data", "code", "versions", "device", "threads")
    lines = [f"{key}: {stored.get(key)} stored, {new[key]} new" for key in keys if stored.get(key) != new[key]]
    return lines + [f"the data differ, stored and new: {line}" for line in differences(stored, new)]
