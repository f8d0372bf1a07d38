"""What the doctor says: one line a problem, with the files that show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dropclass_deploy.core.errors import DataError
from dropclass_deploy.data.doctor.evidence import Evidence
from dropclass_deploy.data.doctor.facts import Problem

Severity = Literal["error", "warning", "note"]
SHOWN = 3
"""Files that a finding names; the count says how many there are."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a stable name, for example "values-unknown".
        severity: "error" when training would fail or silently learn something else, "warning" when it goes on and looks
            suspicious, "note" when it is worth knowing.
        found: what was found.
        expected: what was expected.
        remedy: what to do.
        split: where; None when in several splits.
        files: the first of those that show it.
        count: how many do.
    """

    kind: str
    severity: Severity
    found: str
    expected: str = ""
    remedy: str = ""
    split: str | None = None
    files: tuple[Path, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        return self.message

    @property
    def message(self) -> str:
        """Found, expected and remedy in one line."""
        return " ".join(str(self.error()).split())

    def error(self, more: str = "") -> DataError:
        """The finding as an exception, with ``more`` after its remedy."""
        remedy = " ".join(part for part in (self.remedy.rstrip(".;"), more) if part)
        return DataError(self.found, expected=self.expected, remedy=remedy)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "split": self.split,
            "message": self.message,
            "files": [str(path) for path in self.files],
            "count": self.count,
        }


def about(
    evidence: Evidence,
    paths: Iterable[Path],
    kind: str,
    severity: Severity,
    found: str,
    *,
    expected: str = "",
    remedy: str = "",
) -> Finding:
    """A finding about files: names the first, counts all, and knows their split when it is one."""
    files = tuple(dict.fromkeys(paths))
    owners = {split for path in files for split in evidence.splits_of(path)}
    split = owners.pop() if len(owners) == 1 else None
    return Finding(kind, severity, found, expected, remedy, split, files[:SHOWN], len(files))


def about_problems(
    evidence: Evidence, problems: Sequence[tuple[Path, Problem]], kind: str, severity: Severity
) -> Finding:
    """One finding for many files that were refused: the words of the first, and how many more there are."""
    first = problems[0][1]
    others = [path for path, _ in problems[1:]]
    found = first.found + (f", and {plural(len(others), 'file')} more like it ({names(others)})" if others else "")
    paths = [path for path, _ in problems]
    return about(evidence, paths, kind, severity, found, expected=first.expected, remedy=first.remedy)


def names(paths: Iterable[Path], shown: int = SHOWN) -> str:
    """The first file names, and how many more there are."""
    every = [path.name for path in paths]
    return ", ".join(every[:shown]) + (f" and {len(every) - shown} more" if len(every) > shown else "")


def plural(count: int, noun: str) -> str:
    """ "1 mask", "2 masks"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def masks_hold(count: int, among: int | None = None) -> str:
    """ "1 mask holds", "2 masks hold", "2 masks of 9 hold"."""
    whole = "" if among is None else f" of {among:,}"
    return f"{plural(count, 'mask')}{whole} {agree(count, 'holds', 'hold')}"


def agree(count: int, one: str, many: str) -> str:
    """The verb that goes with a number of things."""
    return one if count == 1 else many


def share(part: int, whole: int) -> str:
    """Per cent to a sensible number of digits."""
    if not part or not whole:
        return "0 %"
    ratio = 100 * part / whole
    return "under 0.01 %" if ratio < 0.01 else f"{ratio:.2g} %" if ratio < 10 else f"{ratio:.0f} %"
