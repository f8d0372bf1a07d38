"""By what the cells of a table were made: a sentence when it is not all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from evidence_grid.store import Stored


class Maker(NamedTuple):
    """Of a part of a run."""

    commit: tuple[str | None, bool | None]
    device: str
    torch: str | None
    threads: int


def makers(cells: Iterable[Stored]) -> set[Maker]:
    """Of every part that is known; of cells that name no parts, the last one's."""
    return {
        Maker(
            (part["code"].get("commit"), part["code"].get("dirty")),
            part["device"],
            part["versions"].get("torch"),
            part["threads"],
        )
        for part in _parts(cells)
    }


def sentence(cells: Iterable[Stored]) -> str | None:
    """How many commits and devices made the cells; None when one maker made them all."""
    found = makers(cells)
    if len(found) < 2:
        return None
    commits, devices, torches, threads = (set(values) for values in zip(*found, strict=True))
    said = f"Made by {_count(len(commits), 'commit')} of the code"
    if any(dirty for _, dirty in commits):
        said += " (with changes not committed)"
    said += f" on {_count(len(devices), 'kind')} of device"
    if len(torches) > 1:
        said += f", with {len(torches)} versions of torch"
    if len(threads) > 1:
        said += f", with {' or '.join(map(str, sorted(threads)))} threads"
    return f"{said}."


def _parts(cells: Iterable[Stored]) -> Iterator[Stored]:
    for cell in cells:
        parts = [part for part in cell.get("parts") or () if part["code"] is not None]
        yield from parts or [cell]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
