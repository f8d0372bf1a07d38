"""Classes that a training lost: learnt once, and below half of their best for three validations in a row.

A pure function of the "val" records of ``metrics.jsonl``: nothing to save, so a resumed run names what an unbroken one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dropclass_deploy.core.metrics import percent

LEARNT_IOU = 0.10
"""Best IoU from which a class counts as learnt. Below it, the IoU of a rare class halves by chance from one validation to
the next (a few hundred pixels decide), and a class that was never learnt cannot be lost."""

LOST_SHARE = 0.5
"""A class is down while its IoU is below this share of its best so far."""

PATIENCE = 3
"""Validations in a row that a class is down before it is named: one bad validation is noise."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Collapse:
    """A class that is down.

    Attributes:
        name: of the class.
        best: its best IoU so far, in [0, 1].
        best_step: the step of it.
        now: its newest IoU.
        step: the step of it.
        since: the first step of the present run of validations below half of the best.
        validations: length of that run, at least ``PATIENCE``.
    """

    name: str
    best: float
    best_step: int
    now: float
    step: int
    since: int
    validations: int

    def note(self) -> str:
        """One line for the log."""
        return (
            f"class {self.name} has collapsed: IoU {percent(self.now)} at step {self.step}, its best was "
            f"{percent(self.best)} at step {self.best_step} (below half of it for {self.validations} validations)"
        )


def newly_collapsed(records: Iterable[Record]) -> tuple[Collapse, ...]:
    """The classes whose third validation in a row below half of their best is the newest validation.

    So each is named once, and again only when it recovered (to half of its best or more) and fell a second time.

    Args:
        records: of ``metrics.jsonl``, of any kind and in any order; the later of two of one step counts.

    Returns:
        In the order of the class table.
    """
    records = list(records)
    newest = max((record["step"] for record in _validations(records)), default=None)
    return tuple(found for found in collapsed(records) if found.validations == PATIENCE and found.step == newest)


def collapsed(records: Iterable[Record]) -> tuple[Collapse, ...]:
    """All classes that are down at their newest validation, for ``PATIENCE`` validations or longer.

    A validation where the class occurs neither in the truth nor in the prediction (IoU null) says nothing about it.
    """
    validations = _validations(records)
    names = dict.fromkeys(name for record in validations for name in record["iou"])
    found = (_of_class(name, _series(name, validations)) for name in names)
    return tuple(one for one in found if one is not None)


def _validations(records: Iterable[Record]) -> list[Record]:
    by_step = {record["step"]: record for record in records if record.get("kind") == "val"}
    return [by_step[step] for step in sorted(by_step)]


def _series(name: str, validations: Iterable[Record]) -> list[tuple[int, float]]:
    values = ((record["step"], record["iou"].get(name)) for record in validations)
    return [(step, value) for step, value in values if value is not None]


def _of_class(name: str, series: list[tuple[int, float]]) -> Collapse | None:
    best, best_step = 0.0, 0
    down: list[tuple[int, float]] = []
    for step, value in series:
        if value > best:
            best, best_step = value, step
        if best >= LEARNT_IOU and value < LOST_SHARE * best:
            down.append((step, value))
        else:
            down = []
    if len(down) < PATIENCE:
        return None
    (since, _), (step, now) = down[0], down[-1]
    return Collapse(name, best, best_step, now, step, since, len(down))
